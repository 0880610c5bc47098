"""Gradient checkpointing: recomputation sees what its own forward saw, and gradients are the same."""

import contextlib
import copy
from collections.abc import Callable, Iterator

import pytest
import timm.layers
import torch
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing
from transformers import PreTrainedModel, VideoMAEConfig, VideoMAEForVideoClassification

import zeroinit
from tests.zeroinit.opened import HOSTS, batch_for, gpt2, gradients, llama, logits, opened, qwen3, roberta, vit

CONDITION = zeroinit.ZeroInit(length=3, layers=2, condition=zeroinit.ImageCondition(depths=2, width=5))
CASES = [(host, reentrant) for host in HOSTS for reentrant in (False, True)]


@contextlib.contextmanager
def checkpointing(model: nn.Module, reentrant: bool) -> Iterator[None]:
    """Gradient checkpointing as each library turns it on."""
    if isinstance(model, PreTrainedModel):
        model.activation_checkpointing_enable({"use_reentrant": reentrant})
        if reentrant:
            model.enable_input_require_grads()
        yield
        return
    before = timm.layers.use_reentrant_ckpt()
    timm.layers.set_reentrant_ckpt(reentrant)
    model.set_grad_checkpointing(True)
    yield
    timm.layers.set_reentrant_ckpt(before)


def inputs_for(model: nn.Module, reentrant: bool, seed: int = 1) -> Tensor:
    """timm has no ``enable_input_require_grads``: reentrant checkpointing needs pictures that require gradients."""
    inputs = batch_for(model, seed=seed)
    return inputs.requires_grad_(reentrant) if inputs.is_floating_point() else inputs


def train_all(model: nn.Module) -> None:
    """Let adapters that are not active now keep their gradients, for a backward pass yet to come."""
    for name, parameter in model.named_parameters():
        if name.endswith((".prompt", ".gate")):
            parameter.requires_grad_(True)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("host", HOSTS)
def test_recomputation_of_torchs_wrapper_sees_its_own_adapter(host: str, when: str) -> None:
    """`apply_activation_checkpointing` wraps blocks from outside, as FSDP's users do, before or after attaching."""
    found = []
    method = zeroinit.ZeroInit(length=3, layers=2, train_head=False)
    for wrapped in (False, True):
        torch.manual_seed(0)
        model = HOSTS[host]()
        if wrapped and when == "before":
            wrap_blocks(model)
        for name in ("a", "b"):
            zeroinit.attach(model, method, name)
        draw_adapters(model)
        if wrapped and when == "after":
            wrap_blocks(model)
        model.train()
        loss = torch.zeros(())
        for name in ("a", "b"):
            zeroinit.activate(model, name)
            train_all(model)
            loss = loss + logits(model, batch_for(model)).pow(2).mean()
        loss.backward()
        found.append(
            {name.replace("_checkpoint_wrapped_module.", ""): g for name, g in planted_gradients(model).items()}
        )
    assert {name.split(".")[-2] for name in found[0]} == {"a", "b"}
    torch.testing.assert_close(found[1], found[0])


def wrap_blocks(model: nn.Module) -> None:
    layers = {id(block) for m in model.modules() if isinstance(m, nn.ModuleList | nn.Sequential) for block in m}
    names = ("LlamaDecoderLayer", "RobertaLayer", "Block")
    apply_activation_checkpointing(model, check_fn=lambda m: id(m) in layers and type(m).__name__ in names)
    assert sum(hasattr(m, "checkpoint_fn") for m in model.modules() if "checkpoint_fn" in vars(m)) == 3


def draw_adapters(model: nn.Module) -> None:
    """Open all gates; the same numbers whatever the parameters' paths are."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith((".prompt", ".gate")):
                parameter.copy_(torch.rand(parameter.shape, generator=generator))


def planted_gradients(model: nn.Module) -> dict[str, Tensor | None]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def count_calls(model: nn.Module) -> list[int]:
    """How often the topmost block's output map runs: recomputation runs it again."""
    calls = [0]

    def count(*_: object) -> None:
        calls[0] += 1

    outputs = ("o_proj", "attention.output.dense", "attn.proj")
    top = [part for name, part in model.named_modules() if name.endswith(outputs)][-1]
    top.register_forward_hook(count)
    return calls


@pytest.mark.parametrize(("host", "reentrant"), CASES)
def test_gradients_are_equal(host: str, reentrant: bool) -> None:
    found = []
    for checkpoint in (False, True):
        model = opened(HOSTS[host]).train()
        calls = count_calls(model)
        with checkpointing(model, reentrant) if checkpoint else contextlib.nullcontext():
            logits(model, inputs_for(model, reentrant)).pow(2).mean().backward()
        found.append((calls[0], gradients(model)))
    (without, expected), (with_, gradients_) = found
    assert with_ > without, "nothing was recomputed"
    assert all(gradient.abs().max() > 0 for gradient in expected.values())
    torch.testing.assert_close(gradients_, expected)


def video() -> nn.Module:
    """Its attention takes no keyword arguments beyond its own."""
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return VideoMAEForVideoClassification(VideoMAEConfig(**size, image_size=32, num_frames=4, initializer_range=0.3))


@pytest.mark.filterwarnings("ignore:VideoMAEForVideoClassification has fc_norm")
def test_gradients_are_equal_where_blocks_hand_nothing_down() -> None:
    expected, found = (opened(video, CONDITION).train() for _ in range(2))
    found.activation_checkpointing_enable()
    pixels, features = torch.randn(2, 4, 3, 32, 32), torch.randn(2, 2, 5)
    for model in (expected, found):
        logits(model, pixels, prompt_condition=features).pow(2).mean().backward()
    torch.testing.assert_close(gradients(found), gradients(expected))


@pytest.mark.parametrize("host", [gpt2, qwen3])
def test_gradients_of_other_decoders_are_equal(host: Callable[..., nn.Module]) -> None:
    expected, found = (opened(host).train() for _ in range(2))
    found.activation_checkpointing_enable()
    for model in (expected, found):
        logits(model, batch_for(model)).pow(2).mean().backward()
    torch.testing.assert_close(gradients(found), gradients(expected))


def test_checkpointing_is_the_hosts_again_after_detach() -> None:
    model, plain = opened(llama).train(), llama().train()
    for each in (model, plain):
        each.activation_checkpointing_enable()
    logits(model, batch_for(model))
    zeroinit.detach(model)
    functions = [
        {type(m.__dict__.get("_gradient_checkpointing_func")) for m in each.modules()} for each in (model, plain)
    ]
    assert functions[0] == functions[1]


def test_checkpointing_of_a_copy_is_its_own() -> None:
    model = opened(llama, CONDITION).train()
    model.activation_checkpointing_enable()
    logits(model, batch_for(model))
    twin, expected = copy.deepcopy(model), opened(llama, CONDITION).train()
    features = torch.randn(2, 2, 5, generator=torch.Generator().manual_seed(1))
    for each in (twin, expected):
        logits(each, batch_for(each), prompt_condition=features).pow(2).mean().backward()
    torch.testing.assert_close(gradients(twin), gradients(expected))


@pytest.mark.parametrize(("host", "reentrant"), CASES)
def test_recomputation_sees_its_own_condition(host: str, reentrant: bool) -> None:
    """Two forwards under different conditions, then one backward, outside of both."""
    found = []
    for checkpoint in (False, True):
        model = opened(HOSTS[host], CONDITION).train()
        with checkpointing(model, reentrant) if checkpoint else contextlib.nullcontext():
            loss = torch.zeros(())
            for seed in (1, 2):
                features = torch.randn(2, 2, 5, generator=torch.Generator().manual_seed(seed))
                with zeroinit.conditioned(model, features, mask=[True, seed == 1]):
                    loss = loss + logits(model, inputs_for(model, reentrant)).pow(2).mean()
            loss.backward()
        found.append(gradients(model))
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.parametrize(("host", "reentrant"), CASES)
def test_recomputation_sees_its_own_adapter(host: str, reentrant: bool) -> None:
    """Two forwards with different adapters, then one backward of their sum, with yet another active."""
    found = []
    method = zeroinit.ZeroInit(length=3, layers=2, train_head=False)
    for checkpoint in (False, True):
        model = opened(HOSTS[host], method, names=("a", "b", "c")).train()
        with checkpointing(model, reentrant) if checkpoint else contextlib.nullcontext():
            loss = torch.zeros(())
            for names in ("a", ["a", "b"]):
                zeroinit.activate(model, names)
                train_all(model)
                loss = loss + logits(model, inputs_for(model, reentrant)).pow(2).mean()
            zeroinit.activate(model, "c")
            train_all(model)
            loss.backward()
        found.append(planted_gradients(model))
    assert {name.split(".")[-2] for name in found[0] if "zeroinit" in name} == {"a", "b"}
    torch.testing.assert_close(found[1], found[0])


def test_recomputation_in_eval_mode_sees_its_own_condition() -> None:
    """timm checkpoints whatever the mode is."""
    found = []
    for checkpoint in (False, True):
        model = opened(vit, CONDITION)
        model.set_grad_checkpointing(checkpoint)
        features = torch.randn(2, 2, 5, generator=torch.Generator().manual_seed(1))
        with zeroinit.conditioned(model, features):
            loss = logits(model, batch_for(model)).pow(3).mean()
        with zeroinit.conditioned(model, 9 * features):
            loss.backward()
        found.append(gradients(model))
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.parametrize("host", [llama, roberta, vit])
def test_forward_in_eval_mode_between_forward_and_backward(host: Callable[..., nn.Module]) -> None:
    """Validation in the middle of a step fills the cache of prompts; the step must not be served from it."""
    model, expected = opened(host).train(), opened(host).train()
    with checkpointing(model, reentrant=False):
        loss = logits(model, batch_for(model)).pow(2).mean()
        model.eval()
        with torch.no_grad():
            logits(model, batch_for(model, seed=2))
        model.train()
        loss.backward()
    logits(expected, batch_for(expected)).pow(2).mean().backward()
    torch.testing.assert_close(gradients(model), gradients(expected))
