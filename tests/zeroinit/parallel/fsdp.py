"""FSDP2 over two processes trains an adapted LLaMA as one process does."""

import copy

import torch
from torch import Tensor, distributed, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

import zeroinit
from tests.zeroinit.opened import llama, logits, opened, tokens

ROWS = 4


def full(values: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    return {name: p.full_tensor() if isinstance(p, DTensor) else p for name, p in values.items()}


def step(model: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, features: Tensor) -> None:
    logits(model, inputs, prompt_condition=features).float().pow(2).mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def evaluate(model: nn.Module, inputs: Tensor, features: Tensor) -> Tensor:
    model.eval()
    with torch.no_grad():
        return logits(model, inputs, prompt_condition=features)


def check(dtype: torch.dtype, tolerance: float) -> None:
    """Two steps of each, then evaluation, a change without gradients, and a checkpoint."""
    rank = distributed.get_rank()
    method = zeroinit.ZeroInit(length=3, layers=2, condition=zeroinit.ImageCondition(2, 5))
    sharded = opened(lambda: llama().to(dtype), method).train()
    single = copy.deepcopy(sharded)
    expected_keys = set(single.state_dict())
    for block in sharded.model.layers:
        fully_shard(block)
    fully_shard(sharded)
    inputs, features = tokens(ROWS), torch.randn(ROWS, 2, 5, generator=torch.Generator().manual_seed(2))
    trained = zeroinit.trainable(sharded)
    assert all(isinstance(p, DTensor) and p.dtype == torch.float32 for p in trained.values())
    optimizers = [torch.optim.AdamW(zeroinit.trainable(model).values(), lr=0.01) for model in (sharded, single)]
    mine = slice(rank * ROWS // 2, (rank + 1) * ROWS // 2)
    for _ in range(2):
        step(sharded, optimizers[0], inputs[mine], features[mine])
        step(single, optimizers[1], inputs, features)
    torch.testing.assert_close(full(trained), full(zeroinit.trainable(single)), rtol=tolerance, atol=tolerance)

    found = evaluate(sharded, inputs, features)
    torch.testing.assert_close(found, evaluate(single, inputs, features), rtol=1e-4, atol=30 * tolerance)
    with torch.no_grad():
        for model in (sharded, single):
            for parameter in zeroinit.trainable(model).values():
                parameter.mul_(0.5)
    changed = evaluate(sharded, inputs, features)
    assert not torch.allclose(changed, found, atol=0.1), "served from a stale cache"
    torch.testing.assert_close(changed, evaluate(single, inputs, features), rtol=1e-4, atol=30 * tolerance)

    options = StateDictOptions(full_state_dict=True)
    state = get_model_state_dict(sharded, options=options)
    assert set(state) == expected_keys
    assert set(trained) <= set(state)
    set_model_state_dict(sharded, {key: value * 2 for key, value in state.items()}, options=options)
    assert torch.equal(full(trained)[min(trained)], 2 * state[min(trained)])


def both() -> int:
    """Check it in both dtypes; how many processes did."""
    check(torch.float32, 1e-5)
    # bfloat16 sums of gradients differ by the order of rows; a step of AdamW passes the difference on.
    check(torch.bfloat16, 1e-2)
    return distributed.get_world_size()
