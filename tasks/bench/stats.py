"""How far a number can be trusted."""

import statistics
from collections.abc import Sequence


def standard_error(values: Sequence[float]) -> float | None:
    """The standard error of a mean over examples; None below two."""
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
