"""attach, activate, detach: named adapters on one host, which stays the user's own model."""

import contextlib
import inspect
import re
import warnings
from collections.abc import Generator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from zeroinit.attention import GatedPrompt
from zeroinit.condition import Condition
from zeroinit.host import Host, Names, known
from zeroinit.methods import Method
from zeroinit.prompts import LayerPrompts
from zeroinit.seams import UnsupportedHostError
from zeroinit.tree import children, named, ours, remove_ours

Model = TypeVar("Model", bound=nn.Module)


def attach(model: Model, method: Method, name: str = "default") -> Model:
    """Freeze a model and plant an adapter in it, in place; the adapter is active and trainable.

    Args:
        model: a transformers or timm model; it stays what it was: ``generate``, ``Trainer``, ``torch.compile``.
        method: what to plant, as ``ZeroInit(length=10, layers=30)``.
        name: the adapter's name among several on one model.

    Returns:
        The same model.

    Raises:
        UnsupportedHostError: if the model's attention cannot be reached; nothing has changed then.
        ValueError: if the name is taken or unfit, or the method does not fit the model.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name) or hasattr(nn.ModuleDict, name) or name in _TAKEN:
        raise ValueError(f"an adapter's name is letters, digits, - and _, and no module attribute: not {name!r}")
    if inner := next((path for path, m in named(model) if isinstance(m, Host) and path != "zeroinit"), None):
        raise ValueError(f".{inner.rpartition('.')[0]} has adapters of its own: attach to it, or detach them first")
    _refuse_sharded(model, "attach")
    host = _host(model) or Host(model)
    if name in host.methods:
        raise ValueError(f"an adapter {name!r} is attached already; detach it first, or choose another name")
    before = host.active
    try:
        host.act(())  # every adapter starts from the host itself, not from the one before
        method.plant(host, name)
        host.methods[name] = method
        host.own_head(name)
        if name in host.heads and (loose := host.seam.beside_head()):
            warnings.warn(
                f"{type(model).__name__} has {', '.join(loose)} beside its head {host.head_path}: it stays frozen "
                "and is not saved with the adapter; start from a checkpoint that holds it",
                stacklevel=2,
            )
        model.add_module("zeroinit", host)
        host.act((name,))
        host.train_only((name,))
    except BaseException:
        host.methods.setdefault(name, method)
        take_out(host, name, before)
        raise
    if host.projectors and not isinstance(model, _TakesCondition):
        model.__class__ = _taking_condition(type(model))
    return model


# Attributes of the modules that adapters are planted in by name.
_TAKEN = frozenset(
    {"cache", "projection", "switch", "term", "keys_ahead", "has_keys_ahead", "first", "leaving", "acting", "entered"}
    | {"None"}  # what stands for no adapter
)


def detach(model: Model, name: str | None = None) -> Model:
    """Take an adapter out, or all of them: the host is as it was before ``attach``, to the bit.

    Raises:
        ValueError: if there is no such adapter.
    """
    host = _attached(model)
    _refuse_sharded(model, "detach")
    for each in [name] if name is not None else list(host.methods):
        known(host, [each])
        take_out(host, each, host.active)
    return model


def take_out(host: Host, name: str, names: Names) -> None:
    """Uproot one adapter; of these names the others act afterwards, and after the last the host is given back whole."""
    model = host.model
    names = tuple(None if each == name else each for each in names)
    names = names if any(names) else ()
    host.act(())
    method = host.methods[name]
    with contextlib.suppress(KeyError, UnsupportedHostError):  # of what could not be planted
        method.uproot(host, name)
    host.methods.pop(name, None)
    host.drop_head(name)
    if host.methods:
        host.act(names)
        host.train_only(names)
        return
    host.seam.close()
    remove_ours(model)
    if isinstance(model, _TakesCondition):
        model.__class__ = type(model).__mro__[1]
    for key, parameter in model.named_parameters():
        parameter.requires_grad_(host.required_grad.get(key, parameter.requires_grad))


def activate(model: Model, names: str | Sequence[str | None]) -> Model:
    """Let one adapter serve the whole batch, or one for each of its samples.

    Args:
        model: a model with adapters.
        names: an adapter's name, or a list of names, None for the host alone. Name i of n serves rows
            i·r … i·r + r - 1 of a batch r times as long (beams, return sequences).

    Raises:
        ValueError: if a name is unknown, if an adapter cannot share a batch, or if heads differ in shape.
    """
    host = host_of(model)
    chosen: Names = (names,) if isinstance(names, str) else tuple(names)
    if not chosen:
        raise ValueError("no adapter named; `disabled(model)` runs the host alone")
    known(host, [name for name in chosen if name is not None])
    if len(set(chosen)) > 1:
        for name in host.adapters(chosen):
            if not host.methods[name].per_sample:
                raise ValueError(
                    f"adapter {name!r} is {type(host.methods[name]).__name__}: it serves whole batches only"
                )
        shapes = {_shapes(host.head_of(name)) for name in chosen}
        if len(shapes) > 1:
            raise ValueError(f"heads of different shape cannot share a batch: {' and '.join(map(str, sorted(shapes)))}")
    if host.switch.state.condition is not None:
        host.switch.state.condition.check(host.projectors, chosen)
    host.act(chosen)
    host.train_only(chosen)
    return model


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """What trains: the planted parameters of the active adapters, and their task head; by name in the model."""
    host = host_of(model)
    planted = {id(p) for name in host.adapters(host.active) for p in host.planted(name).values()}
    return {name: p for name, p in model.named_parameters() if id(p) in planted}


@torch.no_grad()
def gates(model: nn.Module, name: str | None = None) -> dict[str, Tensor]:
    """How far an adapter's gates stand open, by the path of the attention: (heads,), or (1,) where one serves all.

    Args:
        model: a model with adapters.
        name: which; by default the active one. A method without gates has none.

    Raises:
        ValueError: if there is no such adapter, or not exactly one is active and none is named.
    """
    host = host_of(model)
    name = host.one(name)
    planted = {path: module for path, module in named(model) if isinstance(module, LayerPrompts)}
    prompts = {path.removesuffix(".zeroinit"): children(module).get(name) for path, module in planted.items()}
    return {path: p.opening().flatten().clone() for path, p in prompts.items() if isinstance(p, GatedPrompt)}


@contextlib.contextmanager
def disabled(model: nn.Module) -> Generator[None, None, None]:
    """The host alone, for a moment: no adapter acts, and the host's own head is in place."""
    host = host_of(model)
    pause = object()
    if not host.pauses:
        host.paused = host.active
    host.pauses.append(pause)
    host.act(())
    try:
        yield
    finally:
        host.pauses.remove(pause)
        left = tuple(name if name in host.methods else None for name in host.paused)
        if not host.pauses and any(left):
            host.act(left)


@contextlib.contextmanager
def conditioned(
    model: nn.Module, features: Tensor | Sequence[Tensor], mask: Tensor | Sequence[bool] | None = None
) -> Generator[None, None, None]:
    """Condition the prompts of every forward pass inside, ``generate`` included, on features of each sample.

    Args:
        model: a model whose active adapters take a condition.
        features: (rows, depths, width); row i of n serves rows i·r … i·r + r - 1 of a batch r times as long.
            A pair is features and mask, as ``model(..., prompt_condition=(features, mask))`` takes it for one call.
        mask: (rows,), False for a text-only row, which is left unconditioned.

    Raises:
        ValueError: if the shapes do not fit, or an active adapter takes no condition.
    """
    host = host_of(model)
    condition = Condition.of(features, mask)
    condition.check(host.projectors, host.active)
    open_ones = host.switch.conditions
    open_ones.append(condition)
    host.switch.set(condition=condition)
    try:
        yield
    finally:
        # By identity and from the end: contexts that overlap, as those of generators can, leave nothing behind.
        del open_ones[next(i for i in reversed(range(len(open_ones))) if open_ones[i] is condition)]
        host.switch.set(condition=open_ones[-1] if open_ones else None)


def host_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The host's alone, under its own keys: loads strictly in plain transformers and timm."""
    host = host_of(model)
    with disabled(model):
        state = {key: value for key, value in model.state_dict().items() if "zeroinit" not in key.split(".")}
        for name, method in host.methods.items():
            state = method.original(host, name, state)
        if host.kept:  # these tensors are to take an adapter's values, when this block or one around it ends
            state = {key: value.clone() for key, value in state.items()}
    return state


class _TakesCondition:
    """Marks a model's class whose ``forward`` takes ``prompt_condition``."""


def _taking_condition(cls: type[nn.Module]) -> type[nn.Module]:
    """The model's class with one more argument in ``forward``, where Trainer looks for the columns to keep."""

    def forward(
        self: nn.Module, *args: Any, prompt_condition: Tensor | Sequence[Tensor] | None = None, **kwargs: Any
    ) -> Any:
        if prompt_condition is None:
            return cls.forward(self, *args, **kwargs)
        with conditioned(self, prompt_condition):
            return cls.forward(self, *args, **kwargs)

    signature = inspect.signature(cls.forward)
    added = inspect.Parameter("prompt_condition", inspect.Parameter.KEYWORD_ONLY, default=None)
    given = list(signature.parameters.values())
    rest = [p for p in given if p.kind is inspect.Parameter.VAR_KEYWORD]
    given = [p for p in given if p.kind is not inspect.Parameter.VAR_KEYWORD]
    forward.__signature__ = signature.replace(parameters=[*given, added, *rest])  # type: ignore[attr-defined]

    def reduce(self: nn.Module, protocol: object) -> tuple[Any, ...]:
        del protocol
        return _rebuild, (cls,), self.__dict__

    body = {
        "forward": forward,
        "__reduce_ex__": reduce,
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
    }
    return type(cls.__name__, (cls, _TakesCondition), body)


def _rebuild(cls: type[nn.Module]) -> nn.Module:
    taking = _taking_condition(cls)
    return taking.__new__(taking)


def _host(model: nn.Module) -> Host | None:
    host = ours(model)
    return host if isinstance(host, Host) else None


def host_of(model: nn.Module) -> Host:
    """What is attached to a model, a task head that the user has replaced since included.

    Raises:
        ValueError: if nothing is, or if it cannot be told whose a replaced head is.
    """
    host = _attached(model)
    host.adopt_head()
    return host


def _attached(model: nn.Module) -> Host:
    host = _host(model)
    if host is None:
        inner = next((path for path, module in named(model) if isinstance(module, Host)), "")
        where = f": it is inside, give .{inner.rpartition('.')[0]}" if inner else ": attach one first"
        raise ValueError(f"{type(model).__name__} has no adapter{where}")
    return host


def _refuse_sharded(model: nn.Module, what: str) -> None:
    if any(hasattr(parameter, "full_tensor") for parameter in model.parameters()):  # torch's DTensor
        raise ValueError(f"{type(model).__name__} is sharded: {what} before `fully_shard`")


def _shapes(module: nn.Module | None) -> tuple[tuple[int, ...], ...]:
    return () if module is None else tuple(tuple(p.shape) for p in module.parameters())
