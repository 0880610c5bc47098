"""Prefix tuning: prompts in the tokens' own softmax, in every layer."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from zeroinit.methods._in_attention import InAttention
from zeroinit.prompts import Prefix
from zeroinit.seams import Site

if TYPE_CHECKING:
    from zeroinit.host import Host


@dataclass(frozen=True)
class PrefixTuning(InAttention):
    """softmax([q Kᵀ, q kᵀ] s) [V; v]: learned keys K and values V before those of the tokens.

    Li & Liang, Prefix-Tuning (https://arxiv.org/abs/2101.00190), without its reparameterization; Liu et al.,
    P-Tuning v2 (https://arxiv.org/abs/2110.07602). L adapted layers train ``2 · L · length · kv`` parameters, where
    kv is the size of a layer's keys. With ``projected``, a prompt of the tokens' width goes through the frozen key and
    value maps, ``L · length · width`` parameters: LLaMA-Adapter's "vanilla attention" over prompts. Tokens keep their
    positions, and every token sees the whole prefix.

    Attributes:
        length: of the prefix, in tokens.
        layers: adapt the topmost so many; None: all.
        projected: learn prompts for the frozen maps, and not keys and values themselves.
        init_std: the first standard deviation.
        dtype: of the prefix, whatever the host's.
        train_head: whether a task head, where there is one, trains along and is saved.

    Raises:
        ValueError: if a field is out of its range.
    """

    rates: ClassVar[tuple[float, ...]] = (3e-3, 1e-2, 3e-2)

    length: int = 16
    layers: int | None = None
    projected: bool = False
    init_std: float = 1.0
    dtype: str = "float32"
    train_head: bool = True

    def plant(self, host: "Host", name: str) -> None:
        """See ``Method.plant``.

        Raises:
            UnsupportedHostError: if the host's scores hold more than queries and keys.
        """
        host.seam.refuse_prefix()
        super().plant(host, name)

    def module(self, site: Site, device: torch.device) -> Prefix:
        """The keys and values of one layer, or the prompt that they are made from."""
        dtype = getattr(torch, self.dtype)
        if self.projected:
            return Prefix({"prompt": (self.length, site.width)}, self.init_std, dtype=dtype, device=device)
        floating = (p.dtype for p in site.module.parameters() if p.is_floating_point())
        with torch.no_grad():
            tokens = torch.zeros(1, 1, site.width, device=device, dtype=next(floating, torch.get_default_dtype()))
            key, value = site.projection(site.module, tokens)
        shapes = {"key": key.shape, "value": value.shape}
        sizes = {part: (shape[1], self.length, shape[3]) for part, shape in shapes.items()}
        return Prefix(sizes, self.init_std, dtype=dtype, device=device)
