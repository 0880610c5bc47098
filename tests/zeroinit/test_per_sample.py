"""Each row of a batch runs with an adapter of its own, as if it ran alone with it."""

from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from torch import Tensor, nn

import zeroinit
from tests.zeroinit.opened import (
    DECODERS,
    HOSTS,
    batch_for,
    llama,
    llama_classifier,
    logits,
    open_gates,
    roberta,
)
from tests.zeroinit.opened import tokens as tokens_of
from zeroinit.methods.lora import Lora

METHODS = {
    "short": zeroinit.ZeroInit(length=2, layers=1),
    "long": zeroinit.ZeroInit(length=5, gate="identity", per_head=False),
    "plain": zeroinit.ZeroInit(length=3, layers=2, gate="none", init_std=0.5),
}
ORDERS: list[Sequence[str | None]] = [
    ["short", "long", "plain", None],
    ["long", None, "long", None],
    ["plain", "plain", "short", "short"],
    [None, None, None, "short"],
    ["long", "long", "long", "long"],
]
CLASSIFIERS = {"roberta": roberta, "llama_classifier": llama_classifier, "vit": HOSTS["vit"]}


def with_all(host: Callable[..., nn.Module], methods: dict[str, zeroinit.ZeroInit] = METHODS) -> nn.Module:
    """A host with adapters of different lengths, layers and forms of gate, each with a head of its own."""
    torch.manual_seed(0)
    model = host().eval()
    for name, method in methods.items():
        zeroinit.attach(model, method, name)
        open_gates(model)
    return model


def alone(model: nn.Module, name: str | None, inputs: Tensor) -> Tensor:
    if name is None:
        with zeroinit.disabled(model):
            return logits(model, inputs)
    zeroinit.activate(model, name)
    return logits(model, inputs)


@pytest.fixture(params=["cached", "eval", "train"])
def mode(request: pytest.FixtureRequest) -> Iterator[Callable[[nn.Module], nn.Module]]:
    """The three ways that prompts take: cached keys, gradients in eval mode, training."""

    def enter(model: nn.Module) -> nn.Module:
        torch.set_grad_enabled(request.param != "cached")
        return model.train(request.param == "train")

    yield enter
    torch.set_grad_enabled(True)


@pytest.mark.parametrize("names", ORDERS, ids=lambda names: "-".join(map(str, names)))
@pytest.mark.parametrize("host", [*DECODERS, *CLASSIFIERS])
def test_together_equals_one_by_one(
    host: str, names: Sequence[str | None], mode: Callable[[nn.Module], nn.Module]
) -> None:
    model = mode(with_all({**DECODERS, **CLASSIFIERS}[host]))
    inputs = batch_for(model, rows=4)
    zeroinit.activate(model, names)
    together = logits(model, inputs)
    for row, name in enumerate(names):
        expected = alone(model, name, inputs[row : row + 1])[0]
        torch.testing.assert_close(together[row], expected, rtol=1e-4, atol=1e-5)
    outputs = [alone(model, name, inputs[:1]) for name in (*METHODS, None)]
    assert not any(torch.allclose(a, b, atol=1e-3) for i, a in enumerate(outputs) for b in outputs[:i])


@pytest.mark.parametrize("host", CLASSIFIERS)
def test_gradients_are_those_of_each_row(host: str) -> None:
    """Every adapter, its head included, learns from its own rows and from no others."""
    model = with_all(CLASSIFIERS[host]).train()
    inputs = batch_for(model, rows=3)
    names = ["long", "short", "long"]
    zeroinit.activate(model, names)
    assert all(parameter.requires_grad for parameter in zeroinit.trainable(model).values())
    logits(model, inputs).pow(2).sum().backward()
    found = {id(p): p.grad.clone() for p in zeroinit.trainable(model).values()}
    model.zero_grad()
    for name, rows in (("long", [0, 2]), ("short", [1])):
        zeroinit.activate(model, name)
        logits(model, inputs[rows]).pow(2).sum().backward()
        for key, parameter in zeroinit.trainable(model).items():
            torch.testing.assert_close(found.pop(id(parameter)), parameter.grad, rtol=1e-4, atol=1e-5, msg=key)
    assert not found


@pytest.mark.parametrize("options", [{"num_beams": 3}, {"num_beams": 2, "num_return_sequences": 2}, {}])
@pytest.mark.parametrize("host", [llama, DECODERS["gpt2"]])
def test_beams_run_with_the_adapter_of_their_row(host: Callable[..., nn.Module], options: dict[str, int]) -> None:
    model = with_all(host)
    names = ["long", None, "short"]
    inputs = tokens_of(3, 5)
    options = {"max_new_tokens": 6, **options}
    zeroinit.activate(model, names)
    together = model.generate(inputs, **options).split(options.get("num_return_sequences", 1))
    for row, name in enumerate(names):
        one = inputs[row : row + 1]
        if name is None:
            with zeroinit.disabled(model):
                found = model.generate(one, **options)
        else:
            zeroinit.activate(model, name)
            found = model.generate(one, **options)
        assert torch.equal(found, together[row])


def test_sequences_sampled_for_a_row_run_with_its_adapter() -> None:
    model = with_all(llama)
    zeroinit.activate(model, ["long", "short"])
    inputs = tokens_of(2, 5)
    output = model.generate(
        inputs,
        max_new_tokens=4,
        do_sample=True,
        num_return_sequences=3,
        output_logits=True,
        return_dict_in_generate=True,
    )
    scores = torch.stack(output.logits, dim=1)
    for rows, name in ((slice(0, 3), "long"), (slice(3, 6), "short")):
        expected = alone(model, name, output.sequences[rows])[:, 4:-1]
        torch.testing.assert_close(scores[rows], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 2, 4])
@pytest.mark.parametrize("host", [llama, roberta, HOSTS["vit"]])
def test_a_batch_of_another_size_is_an_error(
    host: Callable[..., nn.Module], rows: int, mode: Callable[[nn.Module], nn.Module]
) -> None:
    model = mode(with_all(host))
    zeroinit.activate(model, ["long", "short", None])
    with pytest.raises(ValueError, match=f"{rows} rows is no multiple of the 3"):
        logits(model, batch_for(model, rows=rows))


def test_what_cannot_share_a_batch_is_refused() -> None:
    model = with_all(roberta)
    zeroinit.activate(model, "short")
    with pytest.raises(ValueError, match="no adapter 'absent'"):
        zeroinit.activate(model, ["short", "absent"])
    with pytest.raises(ValueError, match="no adapter named"):
        zeroinit.activate(model, [])
    zeroinit.attach(model, Lora(rank=2), "lora")
    with pytest.raises(ValueError, match="'lora' is Lora"):
        zeroinit.activate(model, ["short", "lora"])
    with pytest.raises(ValueError, match="'lora' is Lora"):
        zeroinit.activate(model, ["lora", None])
    assert model.zeroinit.active == ("lora",), "a refusal changes nothing"


def test_heads_of_different_shape_cannot_share_a_batch() -> None:
    """The end of an adapter's head may have been replaced, for a task with more classes."""
    model = with_all(roberta)
    zeroinit.activate(model, "long")
    model.classifier.out_proj = nn.Linear(32, 7)
    with pytest.raises(ValueError, match="heads of different shape"):
        zeroinit.activate(model, ["short", "long"])


def test_the_same_adapter_in_every_row_is_that_adapter() -> None:
    model = with_all(roberta)
    inputs = batch_for(model, rows=3)
    with torch.no_grad():
        expected = alone(model, "long", inputs)
        zeroinit.activate(model, ["long"] * 3)
        torch.testing.assert_close(logits(model, inputs), expected)
        zeroinit.activate(model, ["long"])
        torch.testing.assert_close(logits(model, inputs), expected)


def test_state_dict_of_adapters_sharing_a_batch_loads_after_activating_one() -> None:
    """Heads move between the host's place and aside; none may be lost from what Trainer saves."""
    model, other = with_all(roberta), with_all(roberta)
    inputs = batch_for(model, rows=3)
    zeroinit.activate(model, ["long", None, "short"])
    with torch.no_grad():
        for parameter in zeroinit.trainable(model).values():
            parameter += 0.1
        expected = logits(model, inputs)
        zeroinit.activate(other, ["long", None, "short"])
        other.load_state_dict(model.state_dict())
        torch.testing.assert_close(logits(other, inputs), expected)
