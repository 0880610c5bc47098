"""torch.compile takes an adapted model whole: no graph break, and the numbers of eager execution."""

import copy
import shutil
import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

import zeroinit
from tests.zeroinit.opened import HOSTS, batch_for, gpt2, gradients, llama, logits, mistral, opened

SHORT = zeroinit.ZeroInit(length=3, layers=1)
CONDITIONED = zeroinit.ZeroInit(length=3, layers=1, condition=zeroinit.ImageCondition(depths=2, width=5))
# Tracing is slow: one host a behaviour by default, all of them in the full sweep.
ONE_AND_ALL = [pytest.param(host, marks=() if host == "vit" else pytest.mark.slow) for host in HOSTS]


@pytest.fixture(autouse=True)
def _forget_compiled() -> Iterator[None]:
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def compare(model: nn.Module, backend: str, **options: object) -> None:
    """Forward in eval mode without gradients, then a training step, compiled in one graph each and not."""
    eager = copy.deepcopy(model)
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    inputs = batch_for(model)
    with torch.no_grad():
        torch.testing.assert_close(
            logits(compiled, inputs, **options), logits(eager, inputs, **options), rtol=1e-5, atol=1e-5
        )
    compiled.train()
    eager.train()
    found, expected = logits(compiled, inputs, **options), logits(eager, inputs, **options)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for output in (found, expected):
        output.pow(2).mean().backward()
    torch.testing.assert_close(gradients(model), gradients(eager), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("host", HOSTS)
def test_one_graph_equals_eager(host: str) -> None:
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[0, :4] = 0
    compare(opened(HOSTS[host], SHORT, layers=2), "aot_eager", **{} if host == "vit" else {"attention_mask": mask})


@pytest.mark.slow
@pytest.mark.parametrize("host", [mistral, gpt2])
def test_one_graph_equals_eager_for_other_decoders(host: Callable[..., nn.Module]) -> None:
    compare(opened(host), "aot_eager")


@pytest.mark.parametrize("host", ONE_AND_ALL)
def test_condition_of_one_call_is_compiled(host: str) -> None:
    features = torch.randn(2, 2, 5, generator=torch.Generator().manual_seed(2))
    compare(opened(HOSTS[host], CONDITIONED, layers=1), "aot_eager", prompt_condition=features)


@pytest.mark.parametrize("host", ONE_AND_ALL)
def test_compiled_model_follows_the_switch(host: str) -> None:
    """What was compiled with one adapter must not answer for another, for none, or for other values."""
    model = opened(HOSTS[host], SHORT, names=("a", "b"), layers=1)
    compiled, eager = torch.compile(model, backend="eager", fullgraph=True), copy.deepcopy(model)
    inputs = batch_for(model)

    def same() -> torch.Tensor:
        with torch.no_grad():
            found = logits(compiled, inputs)
            torch.testing.assert_close(found, logits(eager, inputs), rtol=1e-5, atol=1e-5)
        return found

    seen = [same()]
    for names in ("a", ["a", "b"], [None, "a"]):
        for each in (model, eager):
            zeroinit.activate(each, names)
        seen.append(same())
    with zeroinit.disabled(model), zeroinit.disabled(eager):
        seen.append(same())
    for each in (model, eager):
        zeroinit.activate(each, "a")
        with torch.no_grad():
            for parameter in zeroinit.trainable(each).values():
                parameter *= 0.5
    seen.append(same())
    assert not any(torch.allclose(a, b, atol=1e-4) for i, a in enumerate(seen) for b in seen[:i])


@pytest.mark.slow
@pytest.mark.parametrize("host", HOSTS)
def test_inductor_equals_eager(host: str) -> None:
    if not shutil.which("g++"):
        pytest.skip("the inductor backend needs a C++ compiler")
    compare(opened(HOSTS[host], SHORT, layers=2), "inductor")


@pytest.mark.slow
def test_gradient_checkpointing_in_one_graph_equals_eager() -> None:
    model = opened(llama, SHORT, layers=2)
    eager = copy.deepcopy(model).train()
    model.config.use_cache = False
    model.train().activation_checkpointing_enable()
    model.disable_input_require_grads()  # transformers turns it on, and torch.compile cannot take it
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    for each in (compiled, eager):
        logits(each, batch_for(model)).pow(2).mean().backward()
    torch.testing.assert_close(gradients(model), gradients(eager), rtol=1e-4, atol=1e-5)
