"""Methods over many tasks by their ranks: Friedman's test, and Nemenyi's critical difference (Demsar 2006)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


class Friedman(NamedTuple):
    """The statistic, and the p of all methods being alike."""

    statistic: float
    p: float


def mean_ranks(table: ArrayLike) -> list[float]:
    """Each method's mean rank, 1 the best, ties averaged; rows are tasks, columns methods, more is better."""
    return stats.rankdata(-np.asarray(table, float), axis=1).mean(0).tolist()


def friedman(table: ArrayLike) -> Friedman:
    """Are all methods alike? Rows are tasks, columns at least three methods."""
    columns = np.asarray(table, float).T
    if (columns == columns[0]).all():
        return Friedman(0.0, 1.0)
    found = stats.friedmanchisquare(*columns)
    return Friedman(float(found.statistic), float(found.pvalue))


def critical_difference(methods: int, tasks: int, alpha: float = 0.05) -> float:
    """How far two mean ranks must lie apart to differ by Nemenyi's test."""
    q = stats.studentized_range.ppf(1 - alpha, methods, np.inf) / 2**0.5
    return float(q * (methods * (methods + 1) / (6 * tasks)) ** 0.5)


def cliques(ranks: Sequence[float], difference: float) -> list[tuple[int, ...]]:
    """The largest groups of methods that are not separated, by their places in `ranks`, the best group first."""
    order = sorted(range(len(ranks)), key=lambda place: ranks[place])
    groups, reached = [], 0
    for first in range(len(order)):
        last = max(k for k in range(first, len(order)) if ranks[order[k]] - ranks[order[first]] <= difference)
        if last > first and last > reached:
            groups.append(tuple(order[first : last + 1]))
            reached = last
    return groups
