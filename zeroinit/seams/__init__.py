"""Where each model library lets a term into its attention: one file a library, found by its name.

A seam answers for a host: its attention modules bottom to top, its blocks, its task head. Methods use only that.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from zeroinit import tree
from zeroinit.tree import named

Layout = Literal["separate", "stacked", "interleaved"]


class UnsupportedHostError(ValueError):
    """The model's attention cannot be reached; the message says why and what is supported."""


@dataclass(frozen=True)
class Projection:
    """How one attention module makes keys and values out of tokens, by the names of its own parts.

    ``layout`` tells what the key map returns: "separate", keys alone; "stacked", keys and values (and perhaps
    queries before them) one after the other; "interleaved", query, key and value of each head side by side.
    ``biases`` are those of keys and values that the host adds behind a map without bias, ``factors`` what it
    multiplies them with.
    """

    key: str
    value: str
    kv_heads: int
    head_dim: int
    layout: Layout = "separate"
    key_norm: str | None = None
    value_norm: str | None = None
    clip: float | None = None
    biases: tuple[str, str] | None = None
    factors: tuple[float, float] = (1.0, 1.0)

    def __call__(self, attention: nn.Module, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Project (rows, prompt, width) to keys and values of (rows, kv_heads, prompt, head_dim)."""
        key, value = self._maps(attention, tokens)
        if self.biases:
            key, value = (x + getattr(attention, bias) for x, bias in zip((key, value), self.biases, strict=True))
        if self.key_norm:
            key = self._normalize(getattr(attention, self.key_norm), key)
        if self.clip is not None:
            key, value = key.clamp(-self.clip, self.clip), value.clamp(-self.clip, self.clip)
        key, value = self._by_head(key), self._by_head(value)
        if self.value_norm:
            value = getattr(attention, self.value_norm)(value)
        if self.factors != (1.0, 1.0):
            key, value = (x * factor for x, factor in zip((key, value), self.factors, strict=True))
        return key.transpose(1, 2), value.transpose(1, 2)

    def parts(self, attention: nn.Module) -> list[str]:
        """The names of the host's own parts that keys and values are made with."""
        parts = (self.key, self.value, self.key_norm, self.value_norm, *(self.biases or ()))
        return list(dict.fromkeys(part for part in parts if part and hasattr(attention, part)))

    def _maps(self, attention: nn.Module, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values, each (rows, prompt, kv_heads · head_dim) or already split in heads."""
        key = getattr(attention, self.key)(tokens)
        if self.layout == "separate":
            return key, getattr(attention, self.value)(tokens)
        if self.layout == "stacked":
            size = self.kv_heads * self.head_dim
            return key[..., -2 * size : -size], key[..., -size:]
        _, key, value = key.unflatten(-1, (self.kv_heads, 3, self.head_dim)).unbind(-2)
        return key, value

    def _normalize(self, norm: nn.Module, key: Tensor) -> Tensor:
        """Apply a norm over all heads at once or over each, as the shape of its weight says."""
        weight = getattr(norm, "weight", None)
        if weight is not None and weight.shape == (self.kv_heads * self.head_dim,) and self.kv_heads > 1:
            return norm(key.flatten(2))
        return norm(self._by_head(key))

    def _by_head(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.kv_heads, -1) if x.dim() == 3 else x


@dataclass(frozen=True)
class Site:
    """One attention module of a host that can take a term, and the numbers that its prompts need."""

    name: str
    module: nn.Module
    block: nn.Module
    width: int
    heads: int
    query_map: str
    projection: Projection

    @property
    def device(self) -> torch.device:
        """Where the module is; quantized maps may have buffers alone."""
        return next(chain(self.module.parameters(), self.module.buffers())).device


class Sublayers(NamedTuple):
    """The paths of the two maps whose outputs a block adds to its tokens."""

    attention: str
    feed_forward: str


class Seam(ABC):
    """What a model library must answer so that methods can adapt its models."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    @property
    @abstractmethod
    def host_type(self) -> str:
        """The architecture's name, for the fingerprint of saved adapters."""

    @abstractmethod
    def sites(self) -> list[Site]:
        """The attention modules, bottom to top.

        Raises:
            UnsupportedHostError: if the attention cannot be reached.
        """

    def top(self, layers: int | None) -> list[Site]:
        """The topmost so many attention modules, bottom to top; None: all.

        Raises:
            UnsupportedHostError: if the attention cannot be reached.
            ValueError: if there are fewer, or none is asked for.
        """
        sites = self.sites()
        count = len(sites) if layers is None else layers
        if not 1 <= count <= len(sites):
            raise ValueError(f"layers={layers}, but {type(self.model).__name__} has {len(sites)} attention layers")
        return sites[-count:]

    def chain(self, name: str) -> list[nn.Module]:
        """The modules from the model down to the one of this path."""
        parts = name.split(".") if name else []
        return [self.model.get_submodule(".".join(parts[:depth])) for depth in range(len(parts) + 1)]

    def sublayers(self, site: Site) -> Sublayers:
        """Where the sublayers of an attention module's block end.

        Each is the last linear map to the tokens' width: in the part of the block that holds the attention, and in
        the rest of it.

        Raises:
            UnsupportedHostError: if there is no such map, or one for each of several experts.
        """
        block = next(path for path, module in named(self.model) if module is site.block)
        own = site.name.removeprefix(f"{block}.").partition(".")[0]
        ends = [path for path, outputs in _maps_in(site.block, f"{block}.") if outputs == site.width]
        inside = [path for path in ends if path.startswith(f"{block}.{own}.")]
        outside = [path for path in ends if path not in inside]
        if not inside or not outside or any("expert" in path for path in outside):
            raise UnsupportedHostError(
                f"the block .{block} of {type(self.model).__name__} does not end in one attention map and one "
                "feed-forward map, as those of LLaMA, RoBERTa and ViT do"
            )
        return Sublayers(inside[-1], outside[-1])

    @abstractmethod
    def head_name(self) -> str | None:
        """The path of the task head in the model, None if it has none."""

    def token_entry(self) -> nn.Module | None:
        """The model that turns tokens into embeddings and makes their masks; None where pictures come in.

        Raises:
            UnsupportedHostError: if it takes no embeddings instead of tokens.
        """
        return None

    def beside_head(self) -> list[str]:
        """Parts outside of the base model and its one task head, which a checkpoint of the base model lacks too."""
        return []

    @abstractmethod
    def refuse_prefix(self) -> None:
        """Refuse hosts that add more to their scores than a key in front of the tokens' can have.

        Raises:
            UnsupportedHostError: if the host is one.
        """

    @abstractmethod
    def open(self) -> None:
        """Let the planted prompts act in the host's forward passes; safe to call again."""

    @abstractmethod
    def close(self) -> None:
        """Undo ``open``."""


def _maps_in(module: nn.Module, prefix: str) -> Iterator[tuple[str, int]]:
    """The paths and output widths of the linear maps in a module, in order; what is inside of a map is part of it."""
    for name, child in module.named_children():
        outputs = getattr(child, "out_features", None) or getattr(child, "nf", None)
        if isinstance(outputs, int):
            yield prefix + name, outputs
        elif name != "zeroinit":
            yield from _maps_in(child, f"{prefix}{name}.")


def seam_of(model: nn.Module) -> Seam:
    """The seam of the library that the model's class comes from; nothing is imported for any other.

    Raises:
        UnsupportedHostError: if no library here is the model's.
    """
    libraries = names()
    for cls in type(model).__mro__:
        library = cls.__module__.partition(".")[0]
        if library in libraries:
            return importlib.import_module(f"{__name__}.{library}").ModelSeam(model)
    inside = next((name for name, child in named(model) if name and _is_hosted(child)), None)
    hint = f"; attach to the model inside, at .{inside}" if inside else ""
    raise UnsupportedHostError(f"{type(model).__name__} is not a model of {' or '.join(libraries)}{hint}")


def names() -> list[str]:
    """The supported libraries: the files of this folder."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))


def _is_hosted(module: nn.Module) -> bool:
    bases = {f"{cls.__module__.partition('.')[0]}.{cls.__name__}" for cls in type(module).__mro__}
    return "transformers.PreTrainedModel" in bases or type(module).__module__.startswith("timm.models.")


def remove_hooks(model: nn.Module, hooks: tuple[Callable[..., object], ...]) -> None:
    """Take these functions off every module; they are found by identity, so that a deep copy can be cleaned too."""
    for module in model.modules():
        for table in (tree.hooks(module, before=True), tree.hooks(module, before=False)):
            for handle in [handle for handle, hook in table.items() if hook in hooks]:
                del table[handle]
                for flags in tree.hook_kinds(module):
                    flags.pop(handle, None)


def continued(given: Mapping[str, Any]) -> Any:
    """The keys and values that a pass goes on from: `cache` since transformers 5.24, `past_key_values` before."""
    cache = given.get("cache")
    return given.get("past_key_values") if cache is None else cache
