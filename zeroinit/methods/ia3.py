"""(IA)³, by PEFT: learned factors of keys, values and the hidden layer of the feed-forward part."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from zeroinit.methods._peft import PeftMethod, transposed

if TYPE_CHECKING:
    from zeroinit.host import Host


@dataclass(frozen=True)
class Ia3(PeftMethod):
    """l_k ⊙ k, l_v ⊙ v, and W_out (l_ff ⊙ h) in each block, every factor 1 at the start.

    Liu et al., Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning
    (https://arxiv.org/abs/2205.05638), section 3.3; the tuner is PEFT's. A block of kv keys, kv values and a hidden
    layer of f trains ``2 · kv + f`` parameters. Where a host keeps queries, keys and values in one map, as timm does,
    the queries are scaled too.

    Attributes:
        layers: adapt the topmost so many; None: all.
    """

    mark: ClassVar[str] = "ia3_"
    rates: ClassVar[tuple[float, ...]] = (3e-3, 1e-2, 3e-2)

    layers: int | None = None

    def config(self, host: "Host") -> Any:
        """An ``IA3Config`` that names each map by its path."""
        from peft import IA3Config

        sites = host.seam.top(self.layers)
        maps = [f"{s.name}.{m}" for s in sites for m in dict.fromkeys((s.projection.key, s.projection.value))]
        hidden = [host.seam.sublayers(site).feed_forward for site in sites]
        return IA3Config(
            target_modules=[*maps, *hidden], feedforward_modules=hidden, fan_in_fan_out=transposed(host, maps)
        )

    @staticmethod
    def tuner() -> type:
        """``IA3Model``."""
        from peft import IA3Model

        return IA3Model
