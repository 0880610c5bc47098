"""A factor that no gradient reaches cannot learn, however well the rest does: found out in the first steps of a run.

Published comparisons hold such baselines: an adapter whose two factors both start at zero trains its bias alone.
"""

from collections.abc import Mapping

import torch

from tasks.bench.errors import CellError
from zeroinit.checkpoint import whole

STEPS = 5
"""Zero-init's prompts get a gradient from the second step on, when the gates have opened."""


class Watch:
    """Over the parameters that a method planted, by factor: prompts of all layers are one, gates another."""

    def __init__(self, parameters: Mapping[str, torch.nn.Parameter]) -> None:
        self.parameters = parameters
        self.silent = {_factor(name) for name in parameters}

    def look(self, step: int) -> None:
        """After the backward pass of a step, counted from 0.

        Raises:
            CellError: after the first steps, if a factor never had a gradient.
        """
        if not self.silent or step >= STEPS:
            return
        for name, parameter in self.parameters.items():
            if _factor(name) in self.silent and parameter.grad is not None and whole(parameter.grad).any():
                self.silent.discard(_factor(name))
        if self.silent and step == STEPS - 1:
            raise CellError(f"no gradient reached {', '.join(sorted(self.silent))} in {STEPS} steps: it cannot learn")


def exactly(model: torch.nn.Module, parameters: Mapping[str, torch.nn.Parameter]) -> None:
    """Before training.

    Raises:
        CellError: if something would train that is not among these.
    """
    meant = {id(parameter) for parameter in parameters.values()}
    if more := [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in meant]:
        raise CellError(f"{len(more)} parameters would train that were not planted, first {more[0]}")


def finite(parameters: Mapping[str, torch.nn.Parameter]) -> None:
    """After training.

    Raises:
        CellError: if a parameter is not finite.
    """
    if broken := [name for name, parameter in parameters.items() if not parameter.isfinite().all()]:
        raise CellError(f"{len(broken)} trained parameters are not finite, first {broken[0]}: lower learning_rate")


def _factor(name: str) -> str:
    """What a parameter is, without where it is: `blocks.3.attn.zeroinit.default.gate` is a `zeroinit.gate`."""
    return ".".join(part for part in name.split(".")[-4:] if not part.isdigit() and part != "default")
