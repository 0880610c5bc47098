"""Which differences count: exact tests, correction for many of them, and who is not worse than the best."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from tasks.bench.stats import paired


def mcnemar(one: ArrayLike, other: ArrayLike) -> float:
    """The exact two-sided p of McNemar's test: do two systems answer the same examples right equally often?"""
    first, second = np.asarray(one) > 0, np.asarray(other) > 0
    wins, losses = int((first & ~second).sum()), int((~first & second).sum())
    return float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def holm(ps: Sequence[float]) -> list[float]:
    """Each p corrected for all of them by Holm's step-down rule, in the order given."""
    order = np.argsort(ps, kind="stable")
    steps = np.asarray(ps, float)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted.tolist()


def not_worse(systems: Sequence[ArrayLike], weights: ArrayLike | None = None, *, alpha: float = 0.05) -> list[bool]:
    """Which systems are not significantly worse than the best one, after Holm; the best itself is not.

    More is better: the caller turns around what is not. Each system is (seeds, examples), all on the same examples.
    """
    means = [np.average(np.atleast_2d(system).mean(0), weights=weights) for system in systems]
    best = int(np.argmax(means))
    rivals = [place for place in range(len(systems)) if place != best]
    ps = holm([_p(systems[best], systems[place], weights) for place in rivals])
    return [place == best or ps[rivals.index(place)] > alpha for place in range(len(systems))]


def _p(one: ArrayLike, other: ArrayLike, weights: ArrayLike | None) -> float:
    """McNemar's where both are right or wrong, from one seed each; else of the paired bootstrap."""
    both = [np.atleast_2d(system) for system in (one, other)]
    levels = np.unique(np.concatenate([system.ravel() for system in both]))
    if weights is None and len(levels) <= 2 and all(len(system) == 1 for system in both):
        return mcnemar(both[0][0] == levels[-1], both[1][0] == levels[-1])
    return paired(one, other, weights).p
