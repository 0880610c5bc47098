"""The prompts planted in one attention module: which of them act, and the term they add.

Keys and values of prompts do not depend on the tokens, so they are made once a forward pass, and once and for
all where nothing can change them: gradients off, module in eval mode, the same parameters and condition.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zeroinit.attention import GatedPrompt, gated_prompt_attention
from zeroinit.condition import Condition
from zeroinit.seams import Projection


@dataclass(frozen=True, eq=False)
class State:
    """What a forward pass runs with.

    Attributes:
        names: the adapter of the whole batch, or one for each sample (None: the host alone); empty: no adapter.
        condition: the features that the prompts are conditioned on.
    """

    names: tuple[str | None, ...] = ()
    condition: Condition | None = None


@dataclass(eq=False)
class Switch:
    """The state that all modules of one host share."""

    state: State = field(default_factory=State)
    projectors: nn.ModuleDict = field(default_factory=nn.ModuleDict)

    def set(self, **changes: object) -> State:
        """Change the state; returns the one before."""
        before = self.state
        self.state = replace(before, **changes)  # type: ignore[arg-type]
        return before


@dataclass(frozen=True, eq=False)
class _Cached:
    """Keys and values with what they were made from: they hold while every source is unchanged."""

    key: Tensor
    value: Tensor
    dtype: torch.dtype
    sources: tuple[tuple[Tensor, int, int], ...]

    def holds(self, dtype: torch.dtype, sources: list[Tensor]) -> bool:
        return (
            self.dtype == dtype
            and len(sources) == len(self.sources)
            and all(
                new is old and _version(new) == version and new.data_ptr() == pointer
                for new, (old, version, pointer) in zip(sources, self.sources, strict=True)
            )
        )


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


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
        if not any(name in self._modules for name in state.names):
            return None
        batch = query.shape[0]
        rows_of = _rows_of(state.names, batch)
        if len(rows_of) == 1:
            (name,) = rows_of
            return self._term(str(name), attention, query, scale, softcap, state.condition)
        terms = {}
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
        return self.projection(attention, prompt.to(dtype))

    def _gated_keys_values(
        self, name: str, attention: nn.Module, query: Tensor, condition: Condition | None
    ) -> tuple[Tensor, Tensor]:
        """(batch, heads, prompt, head_dim) each, the gate in the values; cached in eval mode."""
        batch, heads = query.shape[:2]
        cacheable = not self.training and not torch.compiler.is_compiling()
        sources = self._sources(name, attention, condition) if cacheable else []
        cached = self.cache.get(name)
        if cached is None or not cacheable or not cached.holds(query.dtype, sources):
            key, value = self._keys_values(name, attention, query.dtype, condition)
            value = value * getattr(self, name).opening().to(value.dtype)
            key, value = (x.repeat_interleave(heads // x.shape[1], dim=1) for x in (key, value))
            cached = _Cached(
                key, value, query.dtype, tuple((x, _version(x), x.data_ptr()) for x in sources)
            )
            if cacheable:
                self.cache[name] = cached
        return _spread(cached.key, batch, expand=True), _spread(cached.value, batch, expand=True)

    def _sources(self, name: str, attention: nn.Module, condition: Condition | None) -> list[Tensor]:
        """Every tensor that the keys and values of an adapter are made from."""
        sources = [*getattr(self, name).parameters(), *self.projection.parameters(attention)]
        if condition is not None:
            sources += [condition.features, *self.switch.projectors[name].parameters()]
            sources += [] if condition.mask is None else [condition.mask]
        return sources

    def train(self, mode: bool = True) -> "LayerPrompts":
        """Set the mode and forget what was cached."""
        self.cache.clear()
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "LayerPrompts":
        self.cache.clear()
        return super()._apply(fn, recurse)


def _rows_of(names: tuple[str | None, ...], batch: int) -> dict[str | None, list[int]]:
    """The rows of each adapter; name i serves ``batch / len(names)`` consecutive rows."""
    if batch % len(names):
        raise ValueError(f"a batch of {batch} rows is no multiple of the {len(names)} active adapter names")
    if len(set(names)) == 1:
        return {names[0]: []}
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
