"""LoRA, by PEFT: low-rank updates of the query and value maps."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from zeroinit.methods._peft import PeftMethod, transposed

if TYPE_CHECKING:
    from zeroinit.host import Host


@dataclass(frozen=True)
class Lora(PeftMethod):
    """W + (alpha / rank) · B A on the chosen maps, B zero at the start.

    Hu et al., LoRA (https://arxiv.org/abs/2106.09685), eq. 3; the tuner is PEFT's. A map of n inputs and m
    outputs trains ``rank · (n + m)`` parameters: 4,194,304 for LLaMA-7B with rank 8 on queries and values. Where a
    host keeps queries, keys and values in one map, as timm does, that map is updated as a whole.

    Attributes:
        rank: r.
        alpha: the numerator of the update's scale.
        dropout: on the input of A.
        targets: names of the adapted maps; None: those of queries and values, whatever the host calls them.
        layers: adapt the topmost so many; None: all.
    """

    mark: ClassVar[str] = "lora_"

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] | None = None
    layers: int | None = None

    def config(self, host: "Host") -> Any:
        """A ``LoraConfig`` that names each map by its path."""
        from peft import LoraConfig

        targets = self._targets(host)
        return LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type]
            lora_dropout=self.dropout,
            target_modules=targets,
            fan_in_fan_out=transposed(host, targets),
        )

    @staticmethod
    def tuner() -> type:
        """``LoraModel``."""
        from peft import LoraModel

        return LoraModel

    def _targets(self, host: "Host") -> list[str]:
        sites = host.seam.top(self.layers)
        names = self.targets or tuple(dict.fromkeys(m for s in sites for m in (s.query_map, s.projection.value)))
        targets = [f"{site.name}.{name}" for site in sites for name in names if hasattr(site.module, name)]
        if not targets:
            raise ValueError(f"no attention of {type(host.model).__name__} has a map called {' or '.join(names)}")
        return targets
