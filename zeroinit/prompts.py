"""The prompts planted in one attention module: which of them act, and the term they add.

Keys and values of prompts do not depend on the tokens, so they are made once a forward pass. While a model
decodes token by token, gradients off and in eval mode, those of the pass before serve again, as the tokens' own
do. A pass over several tokens always makes them anew: there they cost next to nothing, and fused optimizers and
edits of ``.data`` change parameters without a trace.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.optimizer import register_optimizer_step_post_hook

from zeroinit.attention import GatedPrompt, gated_prompt_attention
from zeroinit.condition import Condition
from zeroinit.seams import Projection
from zeroinit.tree import buffers, children, parameters


@dataclass(frozen=True, eq=False)
class State:
    """What a forward pass runs with.

    Attributes:
        names: the adapter of the whole batch, or one for each sample (None: the host alone); empty: no adapter.
        condition: the features that the prompts are conditioned on.
    """

    names: tuple[str | None, ...] = ()
    condition: Condition | None = None

    @property
    def alone(self) -> str | None:
        """The adapter that serves every row of the batch, None if there is no such one."""
        return self.names[0] if self.names and all(name == self.names[0] for name in self.names) else None


@dataclass(eq=False)
class Switch:
    """The state that all modules of one host share; ``conditions`` are those of the open contexts, outermost first."""

    state: State = field(default_factory=State)
    conditions: list[Condition] = field(default_factory=list[Condition])
    projectors: nn.ModuleDict = field(default_factory=nn.ModuleDict)

    def __getstate__(self) -> dict[str, object]:
        """What copies and pickles take along: no condition that is open here, for none would end it there."""
        return {**self.__dict__, "state": replace(self.state, condition=None), "conditions": []}

    def set(self, **changes: object) -> State:
        """Change the state; returns the one before."""
        before = self.state
        self.state = replace(before, **changes)  # type: ignore[arg-type]
        return before


class _Source(NamedTuple):
    """One thing that keys and values are made from, where it stands, and what it was then."""

    owner: Mapping[str, object]
    key: str
    thing: object
    version: int
    address: int

    @classmethod
    def of(cls, owner: Mapping[str, object], key: str) -> "_Source":
        thing = owner[key]
        return cls(owner, key, thing, *_mark(thing))

    def unchanged(self) -> bool:
        """Whether the same object stands there with the same content."""
        thing = self.owner.get(self.key)
        if self.address < 0:
            return thing is self.thing
        return thing is self.thing and self.version >= 0 and _mark(thing) == (self.version, self.address)


def _mark(thing: object) -> tuple[int, int]:
    """(version, address) of a tensor's data; what has no data is told by its identity alone.

    A tensor of inference mode does not count its changes: its version is -1.
    """
    if not isinstance(thing, Tensor):
        return 0, -1
    return -1 if thing.is_inference() else thing._version, thing.data_ptr()


def _sources_in(module: nn.Module) -> Iterator[_Source]:
    """Every tensor and every part of a module, at any depth."""
    for table in (parameters(module), buffers(module), children(module)):
        for key, thing in table.items():
            yield _Source.of(table, key)
            if isinstance(thing, nn.Module):
                yield from _sources_in(thing)


class _Clock:
    """Counts the steps of all optimizers: fused ones change parameters without a new version."""

    steps = 0

    @classmethod
    def tick(cls, *_: object) -> None:
        """After any optimizer's step."""
        cls.steps += 1


register_optimizer_step_post_hook(_Clock.tick)


class _Cached(NamedTuple):
    """Keys and values, and what they were made from: they hold while all of it is unchanged."""

    key: Tensor
    value: Tensor
    condition: Condition | None
    sources: tuple[_Source, ...]
    steps: int

    def holds(self, dtype: torch.dtype, condition: Condition | None) -> bool:
        same = condition is None if self.condition is None else self.condition.same(condition)
        return (
            same
            and self.steps == _Clock.steps
            and self.key.dtype == dtype
            and all(source.unchanged() for source in self.sources)
        )


class Prefix(nn.Module):
    """What one layer of a prefix learns.

    Attributes:
        key: (kv_heads, prompt, head_dim), and
        value: likewise; or instead of both
        prompt: (prompt, width), for the host's maps.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        init_std: float,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        for name, shape in shapes.items():
            parameter = nn.Parameter(torch.empty(shape, dtype=dtype, device=device))
            if parameter.device.type != "meta":
                nn.init.normal_(parameter, std=init_std)
            self.register_parameter(name, parameter)


class LayerPrompts(nn.Module):
    """The named prompts of one attention module, planted in it under the name ``zeroinit``."""

    def __init__(self, projection: Projection, switch: Switch) -> None:
        super().__init__()
        self.projection = projection
        self.switch = switch
        self.cache: dict[str, _Cached] = {}

    def term(
        self,
        attention: nn.Module,
        query: Tensor,
        scale: float,
        softcap: float | None = None,
        state: State | None = None,
    ) -> Tensor | None:
        """What the active prompts add to the context: (batch, heads, tokens, head_dim), None for nothing.

        Args:
            attention: the module that these prompts are planted in.
            query: (batch, heads, tokens, head_dim), as the host uses it.
            scale: the host's scale.
            softcap: the host's cap on scores.
            state: that of this forward pass; by default the current one.

        Raises:
            ValueError: if the batch is not a multiple of the number of names or of conditioned rows.
        """
        state = state or self.switch.state
        names = state.names
        if len(names) == 1:
            alone = self._is(names[0], GatedPrompt)
            return self._term(str(names[0]), attention, query, scale, softcap, state.condition) if alone else None
        if not any(self._is(name, GatedPrompt) for name in names):
            return None
        batch = query.shape[0]
        rows_of = _rows_of(names, batch)
        terms: dict[str | None, Tensor] = {}
        for name, rows in rows_of.items():
            if name in self._modules:
                part = query[torch.tensor(rows, device=query.device)]
                condition = state.condition and state.condition.select(rows, batch)
                terms[name] = self._term(str(name), attention, part, scale, softcap, condition)
        nothing = next(iter(terms.values())).new_zeros(())
        parts = [
            terms[name] if name in terms else nothing.expand(len(rows), *next(iter(terms.values())).shape[1:])
            for name, rows in rows_of.items()
        ]
        order = [row for rows in rows_of.values() for row in rows]
        return torch.cat(parts)[torch.tensor(order, device=query.device).argsort()]

    def keys_ahead(
        self, attention: nn.Module, query: Tensor, state: State | None = None
    ) -> tuple[Tensor, Tensor] | None:
        """The keys and values that go before the tokens': (batch, kv_heads, prompt, head_dim) each; None: nothing.

        Args:
            attention: the module that the prefix is planted in.
            query: (batch, heads, tokens, head_dim).
            state: that of this forward pass; by default the current one.
        """
        if not self.has_keys_ahead(state):
            return None
        prefix = self.get_submodule(str((state or self.switch.state).alone))
        if "prompt" in parameters(prefix):
            key, value = self.projection(attention, prefix.prompt[None].to(query.dtype))  # type: ignore[index]
        else:
            key, value = (x[None] for x in parameters(prefix).values() if x is not None)
        key, value = (x.to(query.dtype).expand(query.shape[0], -1, -1, -1) for x in (key, value))
        return key, value

    def has_keys_ahead(self, state: State | None = None) -> bool:
        """Whether a prefix acts here, in the current state or the one of a forward pass."""
        return self._is((state or self.switch.state).alone, Prefix)

    def _is(self, name: str | None, kind: type[nn.Module]) -> bool:
        """Whether an adapter has planted such a module here."""
        return isinstance(self._modules.get(name), kind) if name is not None else False

    def _term(
        self,
        name: str,
        attention: nn.Module,
        query: Tensor,
        scale: float,
        softcap: float | None,
        condition: Condition | None,
    ) -> Tensor:
        """The term of one adapter for all rows of ``query``."""
        prompt: GatedPrompt = getattr(self, name)
        if torch.is_grad_enabled():
            key, value = self._keys_values(name, attention, query.dtype, condition)
            key, value = (_spread(x, query.shape[0]) for x in (key, value))
            return gated_prompt_attention(
                query, key, value, prompt.opening(), scale, activation="identity", softcap=softcap
            )
        key, value = self._gated_keys_values(name, attention, query, condition)
        if softcap is not None:
            return gated_prompt_attention(
                query, key, value, value.new_ones(1), scale, activation="identity", softcap=softcap
            )
        return F.scaled_dot_product_attention(query, key, value, scale=scale)

    def _keys_values(
        self, name: str, attention: nn.Module, dtype: torch.dtype, condition: Condition | None
    ) -> tuple[Tensor, Tensor]:
        """(1 or conditioned rows, kv_heads, prompt, head_dim) each."""
        prompt = getattr(self, name).prompt[None]
        if condition is not None:
            prompt = prompt + condition.project(self.switch.projectors, name)
        key, value = self.projection(attention, prompt.to(dtype))
        return key.to(dtype), value.to(dtype)  # under autocast a map may return another dtype than the query's

    def _gated_keys_values(
        self, name: str, attention: nn.Module, query: Tensor, condition: Condition | None
    ) -> tuple[Tensor, Tensor]:
        """(batch, heads, prompt, head_dim) each, the gate in the values; cached from pass to pass of decoding."""
        batch, heads, tokens = query.shape[:3]
        cacheable = not self.training and not torch.compiler.is_compiling()
        cached = self.cache.get(name) if cacheable and tokens == 1 else None
        if cached is None or not cached.holds(query.dtype, condition):
            key, value = self._keys_values(name, attention, query.dtype, condition)
            key, value = (x.repeat_interleave(heads // x.shape[1], dim=1) for x in (key, value))
            value = value * getattr(self, name).opening().to(value.dtype)
            cached = _Cached(key, value, condition, (), _Clock.steps)
            if cacheable:
                self.cache[name] = cached._replace(sources=tuple(self._sources(name, attention, condition)))
        return _spread(cached.key, batch, expand=True), _spread(cached.value, batch, expand=True)

    def _sources(self, name: str, attention: nn.Module, condition: Condition | None) -> Iterator[_Source]:
        """Everything that the keys and values of an adapter are made from."""
        yield from _sources_in(self.get_submodule(name))
        for part in self.projection.parts(attention):
            table = children(attention) if part in children(attention) else parameters(attention)
            table = buffers(attention) if part in buffers(attention) else table
            yield _Source.of(table, part)
            if isinstance(module := table[part], nn.Module):
                yield from _sources_in(module)
        if condition is not None:
            yield from _sources_in(self.switch.projectors[name])
            yield from (_Source.of(vars(condition), key) for key in ("features", "mask"))

    def train(self, mode: bool = True) -> "LayerPrompts":
        """Set the mode and forget what was cached."""
        self.cache.clear()
        return super().train(mode)

    def _replicate_for_data_parallel(self) -> "LayerPrompts":
        raise RuntimeError(
            "nn.DataParallel runs copies that share their prompts' state: use DistributedDataParallel, as torchrun and "
            "accelerate do, or show one GPU (CUDA_VISIBLE_DEVICES=0)"
        )

    def __getstate__(self) -> dict[str, object]:
        """What copies and pickles take along: all but the cache."""
        return {**self.__dict__, "cache": {}}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "LayerPrompts":
        self.cache.clear()
        return super()._apply(fn, recurse)  # pyright: ignore[reportUnknownMemberType]


def _rows_of(names: tuple[str | None, ...], batch: int) -> dict[str | None, list[int]]:
    """The rows of each adapter; name i serves ``batch / len(names)`` consecutive rows."""
    if batch % len(names):
        raise ValueError(f"a batch of {batch} rows is no multiple of the {len(names)} active adapter names")
    repeats = batch // len(names)
    rows_of: dict[str | None, list[int]] = {}
    for row in range(batch):
        rows_of.setdefault(names[row // repeats], []).append(row)
    return rows_of


def _spread(tensor: Tensor, batch: int, expand: bool = False) -> Tensor:
    """Repeat conditioned rows to the batch (beams, return sequences); a single row stays, or is expanded."""
    rows = tensor.shape[0]
    if rows == batch:
        return tensor
    if rows == 1:
        return tensor.expand(batch, -1, -1, -1) if expand else tensor
    if batch % rows:
        raise ValueError(f"a batch of {batch} rows is no multiple of the {rows} conditioned rows")
    return tensor.repeat_interleave(batch // rows, dim=0)
