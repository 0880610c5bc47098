"""How far a number can be trusted: intervals and comparisons over examples, and over seeds where there are several."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


class Spread(NamedTuple):
    """Seeds: their mean, their sample standard deviation (None of one), and how many."""

    mean: float
    sd: float | None
    n: int


class Interval(NamedTuple):
    """A mean and its 95% interval."""

    mean: float
    low: float
    high: float


class Comparison(NamedTuple):
    """How far one is above the other, its 95% interval, and the two-sided p of no difference."""

    difference: float
    low: float
    high: float
    p: float


def standard_error(values: Sequence[float]) -> float | None:
    """The standard error of a mean over examples; None below two."""
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None


def spread(values: Sequence[float]) -> Spread:
    """One number a seed, summed up."""
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def interval(scores: ArrayLike, weights: ArrayLike | None = None) -> Interval:
    """The 95% interval of one system; `scores` are (seeds, examples), or one seed's examples."""
    mean, error, freedom = _estimate([_System(scores, weights)])
    reach = error * stats.t.ppf(0.975, freedom)
    return Interval(mean, mean - reach, mean + reach)


def suite_interval(tasks: Sequence[ArrayLike]) -> Interval:
    """The 95% interval of one system's mean over tasks, each an array of (seeds, examples)."""
    parts = [_estimate([_System(scores, None)]) for scores in tasks]
    mean = statistics.fmean(part[0] for part in parts)
    error = np.sqrt(sum(part[1] ** 2 for part in parts)) / len(parts)
    freedom = (sum(p[1] ** 2 for p in parts)) ** 2 / max(sum(p[1] ** 4 / p[2] for p in parts), 1e-300)
    reach = float(error * stats.t.ppf(0.975, max(freedom, 1)))
    return Interval(mean, mean - reach, mean + reach)


def paired(one: ArrayLike, other: ArrayLike, weights: ArrayLike | None = None) -> Comparison:
    """Compare two systems on the same examples; both are (seeds, examples), the numbers of seeds may differ."""
    difference, error, freedom = _estimate([_System(one, weights), _System(other, weights, -1.0)])
    reach = error * stats.t.ppf(0.975, freedom)
    p = 2 * stats.t.sf(abs(difference) / error, freedom) if error else float(difference == 0)
    return Comparison(difference, difference - reach, difference + reach, float(p))


def detectable(one: ArrayLike, other: ArrayLike, weights: ArrayLike | None = None) -> float:
    """The smallest difference that a two-sided test at 5% finds with 80% power: 2.80 standard errors."""
    return _POWER * _estimate([_System(one, weights), _System(other, weights, -1.0)])[1]


def detectable_alone(scores: ArrayLike, weights: ArrayLike | None = None, *, correlation: float = 0.0) -> float:
    """As `detectable`, of one system and another like it, whose scores correlate so much example by example."""
    return _POWER * (2 * (1 - correlation)) ** 0.5 * _estimate([_System(scores, weights)])[1]


_POWER = float(stats.norm.ppf(0.975) + stats.norm.ppf(0.8))


class _System:
    def __init__(self, scores: ArrayLike, weights: ArrayLike | None, sign: float = 1.0) -> None:
        self.scores = sign * np.atleast_2d(np.asarray(scores, float))
        self.weights = np.ones(self.scores.shape[1]) if weights is None else np.asarray(weights, float)


def _estimate(systems: Sequence[_System]) -> tuple[float, float, float]:
    weights = systems[0].weights / systems[0].weights.mean()
    n = len(weights)
    mean = sum(system.scores.mean(0) for system in systems)
    value = float((weights * mean).mean())
    parts = [(np.var(weights * (mean - value), ddof=1) / n if n > 1 else 0.0, max(n - 1, 1))]
    for system in systems:
        count = len(system.scores)
        if count > 1:
            means = (weights * system.scores).mean(1)
            left = system.scores - system.scores.mean(0) - (means - means.mean())[:, None]
            within = (left**2).sum() / ((count - 1) * max(n - 1, 1)) / n
            parts.append((max(0.0, np.var(means, ddof=1) - within) / count, count - 1))
    variance = sum(part for part, _ in parts)
    freedom = variance**2 / max(sum(part**2 / free for part, free in parts), 1e-300)
    return value, float(variance**0.5), float(max(freedom, 1))
