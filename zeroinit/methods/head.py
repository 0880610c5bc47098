"""The task head alone: a linear probe of the frozen host."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import nn

from zeroinit.methods import Method

if TYPE_CHECKING:
    from zeroinit.host import Host


@dataclass(frozen=True)
class Head(Method):
    """Train the host's own task head (``score``, ``classifier``, ``qa_outputs``, timm's classifier), nothing below.

    Alain & Bengio, Understanding intermediate layers using linear classifier probes
    (https://arxiv.org/abs/1610.01644). Trains as many parameters as the head has.
    """

    rates: ClassVar[tuple[float, ...]] = (3e-3, 1e-2, 3e-2)

    def starts_closed(self) -> bool:
        """See ``Method.starts_closed``: nothing is planted."""
        return True

    def plant(self, host: "Host", name: str) -> None:
        """Nothing to plant: the head is the adapter's.

        Raises:
            ValueError: if the host has no task head.
        """
        del name
        if host.seam.head_name() is None:
            raise ValueError(f"{type(host.model).__name__} has no task head to train")

    def planted(self, host: "Host", name: str) -> dict[str, nn.Parameter]:
        """Nothing."""
        return {}

    def uproot(self, host: "Host", name: str) -> None:
        """Nothing to take out."""
