# pyright: reportPrivateUsage=false
"""What torch knows of a module's parts, and keeps to itself: the tables themselves, with their types.

A table tells whether a part is there without asking the module for an attribute, which compiles into a guard, answers
for what a wrapper holds too, and raises. All that is private to torch stands here.
"""

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn


def children(module: nn.Module) -> dict[str, nn.Module | None]:
    """Its own modules by name; to change the table is to change the module."""
    return module._modules


def ours(module: nn.Module) -> nn.Module | None:
    """What this library put into a module, always by its own name."""
    return module._modules.get("zeroinit")


def remove_ours(module: nn.Module) -> None:
    """Take it out of the module again, where it is there."""
    module._modules.pop("zeroinit", None)


def parameters(module: nn.Module) -> dict[str, nn.Parameter | None]:
    """Its own parameters by name; to change the table is to change the module."""
    return module._parameters


def buffers(module: nn.Module) -> dict[str, Tensor | None]:
    """Its own buffers by name; to change the table is to change the module."""
    return module._buffers


def named(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """It and all modules in it, with their paths."""
    return cast(Iterator[tuple[str, nn.Module]], module.named_modules())


def hooks(module: nn.Module, before: bool) -> dict[int, Any]:
    """What is called before it, or after it, by the hook's number; to change the table is to change the module."""
    inside: Any = module
    return inside._forward_pre_hooks if before else inside._forward_hooks


def hook_kinds(module: nn.Module) -> tuple[dict[int, bool], ...]:
    """Which hooks are called with keyword arguments, and which always."""
    return (
        module._forward_pre_hooks_with_kwargs,
        module._forward_hooks_with_kwargs,
        module._forward_hooks_always_called,
    )


def in_backward() -> bool:
    """Whether autograd's engine calls us: a checkpointed forward is being computed again."""
    return torch._C._current_graph_task_id() != -1
