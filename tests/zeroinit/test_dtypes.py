"""Prompts stay in float32 under a host of half precision, and train there; a cast or copied model is whole."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

import zeroinit
from tests.zeroinit.opened import HOSTS, batch_for, gpt2, gradients, llama, logits, mistral, opened, qwen3, tokens

EVERY = {**HOSTS, "mistral": mistral, "qwen3": qwen3, "gpt2": gpt2}
HALVES = [torch.bfloat16, torch.float16]


def in_dtype(host: Callable[..., nn.Module], dtype: torch.dtype) -> Callable[..., nn.Module]:
    """A host that is cast before anything is attached, as one loaded in half precision."""
    return lambda: host().to(dtype)


@pytest.mark.parametrize("host", EVERY)
@pytest.mark.parametrize("dtype", HALVES)
def test_closed_gate_is_the_host_to_the_bit(host: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    frozen = EVERY[host]().to(dtype).eval()
    model = zeroinit.attach(copy.deepcopy(frozen), zeroinit.ZeroInit(length=3))
    inputs = batch_for(model)
    inputs = inputs.to(dtype) if inputs.is_floating_point() else inputs
    with torch.no_grad():
        expected = logits(frozen, inputs)
        assert torch.equal(logits(model, inputs), expected)
    assert expected.dtype == dtype
    assert torch.equal(logits(model.train(), inputs), logits(frozen.train(), inputs))


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("dtype", HALVES)
def test_one_step_moves_every_entry_of_the_prompts(host: str, dtype: torch.dtype) -> None:
    """In bfloat16 this step is less than half a unit in the last place of most entries, and is lost."""
    model = opened(in_dtype(HOSTS[host], dtype)).train()
    trained = {name: p for name, p in zeroinit.trainable(model).items() if name.endswith((".prompt", ".gate"))}
    assert {p.dtype for p in trained.values()} == {torch.float32}
    before = {name: p.detach().clone() for name, p in trained.items()}
    optimizer = torch.optim.AdamW(trained.values(), lr=5e-4)
    inputs = batch_for(model)
    inputs = inputs.to(dtype) if inputs.is_floating_point() else inputs
    logits(model, inputs).float().pow(2).mean().backward()
    optimizer.step()
    for name, p in trained.items():
        assert (p != before[name]).all(), name


@pytest.mark.parametrize("host", EVERY)
@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_is_near_full_precision(host: str, dtype: torch.dtype) -> None:
    full, half = opened(EVERY[host]), opened(in_dtype(EVERY[host], dtype))
    inputs = batch_for(full)
    with torch.no_grad():
        expected = logits(full, inputs)
        found = logits(half, inputs.to(dtype) if inputs.is_floating_point() else inputs)
        with zeroinit.disabled(full):
            frozen = logits(full, inputs)
    assert found.dtype == dtype
    error = (found.float() - expected).norm()
    assert error < 0.1 * expected.norm()
    assert error < 0.3 * (frozen - expected).norm()


@pytest.mark.parametrize("host", HOSTS)
def test_cast_after_attach(host: str) -> None:
    """``.to(dtype)`` casts the prompts with the host, as it casts all that is in a model; nothing stale is served."""
    model = opened(HOSTS[host])
    inputs = batch_for(model)
    with torch.no_grad():
        logits(model, inputs)
        model.to(torch.bfloat16)
        halved = inputs.to(torch.bfloat16) if inputs.is_floating_point() else inputs
        found = logits(model, halved)
        assert found.dtype == torch.bfloat16
        model.float()
        rounded = logits(model, inputs)
    torch.testing.assert_close(found.float(), rounded, rtol=0.1, atol=0.2)
    model.to(torch.bfloat16).train()
    logits(model, halved).float().pow(2).mean().backward()
    assert all(gradient.isfinite().all() for gradient in gradients(model).values())


@pytest.mark.parametrize("host", EVERY)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast(host: str, dtype: torch.dtype) -> None:
    """In and out of autocast, in any order: keys of one dtype do not serve queries of another."""
    model = opened(in_dtype(EVERY[host], dtype))
    inputs = batch_for(model)
    inputs = inputs.to(dtype) if inputs.is_floating_point() else inputs
    with torch.no_grad():
        expected = logits(model, inputs)
        with torch.autocast("cpu", torch.bfloat16):
            found = logits(model, inputs)
        assert torch.equal(logits(model, inputs), expected)
    assert (found.float() - expected.float()).norm() < 0.1 * expected.float().norm()
    with torch.autocast("cpu", torch.bfloat16):
        loss = logits(model.train(), inputs).float().pow(2).mean()
    loss.backward()
    for name, gradient in gradients(model).items():
        assert gradient.abs().max() > 0, name


@pytest.mark.parametrize("host", HOSTS)
def test_a_copy_is_independent(host: str) -> None:
    model = opened(HOSTS[host])
    inputs = batch_for(model)
    with torch.no_grad():
        expected = logits(model, inputs)
    twin = copy.deepcopy(model).train()
    optimizer = torch.optim.SGD(zeroinit.trainable(twin).values(), lr=0.1)
    logits(twin, inputs).pow(2).mean().backward()
    optimizer.step()
    zeroinit.attach(twin, zeroinit.ZeroInit(length=2), "another")
    with torch.no_grad():
        assert not torch.allclose(logits(twin.eval(), inputs), expected, atol=1e-3)
        assert torch.equal(logits(model, inputs), expected)
    zeroinit.detach(twin)
    with torch.no_grad():
        assert torch.equal(logits(model, inputs), expected)
        with zeroinit.disabled(model):
            assert torch.equal(logits(model, inputs), logits(twin, inputs))


@pytest.mark.parametrize("bits", [4, 8])
def test_quantized_host(bits: int, tmp_path: object) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    torch.manual_seed(0)
    llama().save_pretrained(tmp_path)
    quantized = BitsAndBytesConfig(load_in_4bit=bits == 4, load_in_8bit=bits == 8)
    frozen = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=quantized).eval()
    with torch.no_grad():
        expected = logits(frozen, tokens())
        model = zeroinit.attach(frozen, zeroinit.ZeroInit(length=3))
        assert torch.equal(logits(model, tokens()), expected)
    trained = zeroinit.trainable(model)
    assert {p.dtype for p in trained.values()} == {torch.float32}
    with torch.no_grad():
        for name, p in trained.items():
            if name.endswith(".gate"):
                p.fill_(0.5)
    before = {name: p.detach().clone() for name, p in trained.items()}
    optimizer = torch.optim.AdamW(trained.values(), lr=5e-4)
    logits(model.train(), tokens()).float().pow(2).mean().backward()
    optimizer.step()
    for name, p in trained.items():
        assert (p != before[name]).all(), name
