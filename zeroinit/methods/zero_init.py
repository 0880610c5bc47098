"""Zero-init gated prompts: LLaMA-Adapter, on any transformer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import torch
from torch import nn

from zeroinit.attention import Gate, GatedPrompt
from zeroinit.condition import ImageCondition
from zeroinit.methods._in_attention import InAttention
from zeroinit.seams import Site

if TYPE_CHECKING:
    from zeroinit.host import Host


@dataclass(frozen=True)
class ZeroInit(InAttention):
    """Prompts in the topmost layers, each opened by a gate that starts at zero.

    Zhang et al., LLaMA-Adapter (https://arxiv.org/abs/2303.16199), eq. 5-8; also known as AdaptionPrompt and
    zero-init attention. On a host of ``width`` with ``heads``, L adapted layers and prompts of length K train
    ``L · (K · width + heads)`` parameters: 1,229,760 for LLaMA-7B with K = 10, L = 30.

    Attributes:
        length: K, prompt tokens a layer.
        layers: L, counted from the top; None: all.
        gate: "tanh" as the paper's training code; "identity" as its inference code and PEFT; "none": no gate.
        per_head: one gate a head, else one a layer.
        gate_init: the gates' first value, before their activation.
        init_std: the prompts' first standard deviation.
        dtype: of prompts and gates, whatever the host's; they are cast at use. In bfloat16 a usual step of
            AdamW is lost to rounding for most prompt entries.
        train_head: whether a task head, where there is one, trains along and is saved.
        condition: the shape of the image features that prompts are conditioned on.

    Raises:
        ValueError: if a field is out of its range.
    """

    per_sample: ClassVar[bool] = True
    rates: ClassVar[tuple[float, ...]] = (3e-3, 1e-2, 3e-2)

    length: int = 10
    layers: int | None = None
    gate: Gate = "tanh"
    per_head: bool = True
    gate_init: float = 0.0
    init_std: float = 1.0
    dtype: str = "float32"
    train_head: bool = True
    condition: ImageCondition | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gate not in ("tanh", "identity", "none"):
            raise ValueError(f'gate is "tanh", "identity" or "none", not {self.gate!r}')

    def starts_closed(self) -> bool:
        """See ``Method.starts_closed``: if there are gates, and they start at zero."""
        return self.gate != "none" and self.gate_init == 0

    def module(self, site: Site, device: torch.device) -> GatedPrompt:
        """A prompt and its gate."""
        return GatedPrompt(
            self.length,
            site.width,
            site.heads,
            activation=self.gate,
            per_head=self.per_head,
            gate_init=self.gate_init,
            init_std=self.init_std,
            dtype=getattr(torch, self.dtype),
            device=device,
        )

    def plant(self, host: "Host", name: str) -> None:
        """See ``Method.plant``."""
        super().plant(host, name)
        if self.condition is not None:
            sites = self.sites(host)
            if any(site.width != sites[-1].width for site in sites):
                raise ValueError("a condition needs adapted layers of one width")
            factory: Any = {"dtype": getattr(torch, self.dtype), "device": sites[-1].device}
            host.switch.projectors[name] = self.condition.projector(sites[-1].width, **factory)

    def planted(self, host: "Host", name: str) -> dict[str, nn.Parameter]:
        """``layers.{index}.prompt`` and ``.gate``, the index counted from the host's lowest attention."""
        found = super().planted(host, name)
        if name in host.switch.projectors:
            projector = host.switch.projectors[name]
            found |= {f"condition.{key}": value for key, value in projector.named_parameters()}
        return found

    def uproot(self, host: "Host", name: str) -> None:
        """See ``Method.uproot``."""
        if name in host.switch.projectors:
            del host.switch.projectors[name]
        super().uproot(host, name)

    @classmethod
    def from_fields(cls, values: Mapping[str, Any]) -> Self:
        """See ``Method.from_fields``; a condition comes as a mapping."""
        condition = values.get("condition")
        if isinstance(condition, Mapping):
            try:
                values = {**values, "condition": ImageCondition(**cast(Mapping[str, Any], condition))}
            except TypeError as error:
                raise ValueError(f"condition: {error}") from None
        return super().from_fields(values)
