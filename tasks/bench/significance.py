"""Which differences count: McNemar's exact test, Holm's correction of many, and who is not worse than the best."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from tasks.bench.resample import measure
from tasks.bench.stats import LEVEL, paired


def mcnemar(one: ArrayLike, other: ArrayLike) -> float:
    """The exact two-sided p of two systems that are right or wrong (more than 0, or 0) being right equally often.

    Of the examples that only one of them gets right, are as many the one's as the other's?
    """
    first, second = np.ravel(one) > 0, np.ravel(other) > 0
    if len(first) != len(second):
        raise ValueError(f"{len(first)} examples are not paired with {len(second)}")
    wins, losses = int((first & ~second).sum()), int((second & ~first).sum())
    return min(1.0, 2 * float(special.bdtr(min(wins, losses), wins + losses, 0.5)))


def holm(ps: Sequence[float], family: int | None = None) -> list[float]:
    """Each p corrected for all of them by Holm's step-down rule, in the order given.

    Args:
        ps: as they were found.
        family: of how many tests these are a part, if not of themselves alone. The others only count, so the result is
            at least as strict as if their p were known.
    """
    order = np.argsort(ps, kind="stable")
    steps = np.asarray(ps, float)[order] * (np.arange(len(order), 0, -1) + (family or len(order)) - len(order))
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted.tolist()


def difference(one: ArrayLike, other: ArrayLike, weights: ArrayLike | None = None, *, seed: int = 0) -> float:
    """The two-sided p of no difference: McNemar's of two that are right or wrong, one seed each; else `paired`'s."""
    if is_exact(one, other, weights):
        return mcnemar(*_counted(one, other, weights))
    return paired(one, other, weights, seed=seed).p


def is_exact(one: ArrayLike, other: ArrayLike, weights: ArrayLike | None = None) -> bool:
    """Whether `difference` is an exact test: each example that counts was right or wrong, once, and weighs the same."""
    counted = _counted(one, other, weights)
    levels = np.unique(np.concatenate([system.ravel() for system in counted]))
    heavy = np.ones(1) if weights is None else np.asarray(weights, float)
    alike = np.ptp(heavy[heavy > 0]) == 0 and all(len(system) == 1 for system in counted)
    return bool(alike and len(levels) <= 2 and levels[0] == 0)


def _counted(one: ArrayLike, other: ArrayLike, weights: ArrayLike | None) -> list[NDArray[np.float64]]:
    """Both, without examples that weigh nothing."""
    both = [np.atleast_2d(np.asarray(system, float)) for system in (one, other)]
    return both if weights is None else [system[:, np.asarray(weights) > 0] for system in both]


def not_worse(systems: Sequence[ArrayLike], weights: ArrayLike | None = None, *, seed: int = 0) -> list[bool]:
    """Which systems are not significantly worse than the best, which is not itself: what a table prints in bold.

    More is better: the caller turns around what is not. Holm counts every pair of systems, though only those with the
    best are tested, for which one that is has been seen in the same scores. Were the others alone counted, 9% of tables
    of five equal systems, and 15% of ten, would call some of them worse than the best, in place of 5%.
    """
    means = [measure([(1.0, system)], weights).value for system in systems]
    best = int(np.argmax(means))
    rivals = [place for place in range(len(systems)) if place != best]
    ps = [difference(systems[best], systems[place], weights, seed=seed) for place in rivals]
    adjusted = holm(ps, len(systems) * len(rivals) // 2)
    worse = {place for place, p in zip(rivals, adjusted, strict=True) if p <= LEVEL}
    return [place not in worse for place in range(len(systems))]
