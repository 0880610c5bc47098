"""Accuracies of VTAB's sets in one number: the mean of the three groups' means, and the mean of the nineteen.

They differ by 2 to 5 points and order methods differently, and papers print either without saying which. So both are
given, and neither from fewer than all the sets it is of.
"""

import statistics
from collections.abc import Mapping

from tasks._vtab_sets import DATASETS, GROUPS


def group_mean(scores: Mapping[str, float], group: str) -> float | None:
    """The mean over a group's sets; None where one is missing."""
    return _mean([scores.get(name) for name, dataset in DATASETS.items() if dataset.group == group])


def mean_of_groups(scores: Mapping[str, float]) -> float | None:
    """The mean of the three groups' means, as NOAH, Convpass and LLaMA-Adapter print it: groups count alike."""
    return _mean([group_mean(scores, group) for group in GROUPS])


def mean_of_19(scores: Mapping[str, float]) -> float | None:
    """The mean of the nineteen, as the benchmark's authors and V-PETL Bench print it: sets count alike."""
    return _mean([scores.get(name) for name in DATASETS])


def summary(scores: Mapping[str, float]) -> dict[str, float | None]:
    """All five means by name."""
    means = {group: group_mean(scores, group) for group in GROUPS}
    return means | {"mean_of_groups": mean_of_groups(scores), "mean_of_19": mean_of_19(scores)}


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None
