"""BitFit: the host's biases alone train."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import nn

from zeroinit.methods.full import Full

if TYPE_CHECKING:
    from zeroinit.host import Host


@dataclass(frozen=True)
class Bitfit(Full):
    """Train every bias of the host in place, those of its norms included.

    Ben Zaken et al., BitFit (https://arxiv.org/abs/2106.10199). 102,912 parameters in a ViT-B/16.
    """

    rates: ClassVar[tuple[float, ...]] = (1e-3, 3e-3, 1e-2)

    def plant(self, host: "Host", name: str) -> None:
        """See ``Full.plant``.

        Raises:
            ValueError: if the host has no biases, as LLaMA has none.
        """
        if not self.planted(host, name):
            raise ValueError(f"{type(host.model).__name__} has no bias to train")
        super().plant(host, name)

    def planted(self, host: "Host", name: str) -> dict[str, nn.Parameter]:
        """The host's biases under their own names."""
        return {key: p for key, p in super().planted(host, name).items() if key.rpartition(".")[2] == "bias"}
