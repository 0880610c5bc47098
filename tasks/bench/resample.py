"""What a mean would come to on other examples and with other seeds: the draws behind every interval.

Examples are resampled. Seeds are not: two or three that are resampled only repeat themselves, so that the variance of
their mean comes out at a half or two thirds of what it is. They are drawn from a normal of their measured variance, and
what the examples at hand brought to it is taken from the part of the examples: a plain bootstrap of both counts it
twice (Owen 2007, "The pigeonhole bootstrap"). How little is known of that variance enters by Satterthwaite's degrees of
freedom.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Array = NDArray[np.float64]

KEPT = 0.25
"""The share of a resample's variance that is the sample's own: answers nearly all right may have none in a resample."""
CAUTION = 1 / 3
"""The chance that the seeds' true variance is above the limit at which it is taken for the degrees of freedom.

Taken as measured, they come out too many whenever a few seeds happen to lie close together: where three seeds decide a
number its interval then covers 92%, and where two do 87%.
"""
BLOCK = 1 << 20
"""Numbers that are worked on at a time."""


class Seeds(NamedTuple):
    """What several seeds bring to the variance of their mean, and its degrees of freedom."""

    variance: float
    freedom: int


class Measured(NamedTuple):
    """A weighted mean over examples, and what makes it vary.

    Attributes:
        value: the mean.
        pulls: how far each example pulls it from where the others hold it, times their number; they add up to 0.
        weights: of each example, 1 on average.
        resting: the part of its variance that comes from examples alone.
        seeds: for each system of several seeds, the part that comes from these.
    """

    value: float
    pulls: Array
    weights: Array
    resting: float
    seeds: tuple[Seeds, ...]

    @property
    def variance(self) -> float:
        """Of the mean, over examples and seeds."""
        return self.resting + sum(part.variance for part in self.seeds)

    def times(self, factor: float) -> "Measured":
        """The same of a multiple."""
        seeds = tuple(Seeds(factor**2 * part.variance, part.freedom) for part in self.seeds)
        return Measured(factor * self.value, factor * self.pulls, self.weights, factor**2 * self.resting, seeds)


def measure(systems: Sequence[tuple[float, ArrayLike]], weights: ArrayLike | None = None) -> Measured:
    """A system's mean, or the difference of two: each is a sign and its scores, of (seeds, examples) or of one seed.

    Raises:
        ValueError: the systems do not answer the same examples, or something is not a number.
    """
    signed = [sign * np.atleast_2d(np.asarray(scores, float)) for sign, scores in systems]
    n = signed[0].shape[1]
    heavy = np.ones(n) if weights is None else np.asarray(weights, float)
    if any(scores.ndim != 2 or scores.shape[1] != n or not scores.size for scores in signed) or heavy.shape != (n,):
        raise ValueError("systems and weights must be of the same examples, at least one")
    if not all(np.isfinite(each).all() for each in (*signed, heavy)) or (heavy < 0).any() or not heavy.any():
        raise ValueError("scores must be finite numbers, and weights positive ones")
    signed, heavy = [scores[:, heavy > 0] for scores in signed], heavy[heavy > 0]  # what weighs nothing is not there
    heavy = heavy / heavy.mean()
    mean = np.sum([scores.mean(0) for scores in signed], axis=0)
    value = float((heavy * mean).mean())
    pulls = heavy * (mean - value)
    parts = [_seeds(scores, heavy) for scores in signed if len(scores) > 1]
    whole = _variance(pulls)
    resting = whole - sum(shared for _, shared in parts)
    resting = resting if resting > 1e-12 * whole else 0.0  # what is left of rounding is nothing
    return Measured(value, pulls, heavy, resting, tuple(part for part, _ in parts))


def _seeds(scores: Array, weights: Array) -> tuple[Seeds, float]:
    """What seeds bring to the variance of their mean, and the part of it that the examples at hand brought to them."""
    count, n = scores.shape
    means = (weights * scores).mean(1)
    left = weights * (scores - scores.mean(0) - (means - means.mean())[:, None])
    shared = float((left**2).sum()) / ((count - 1) * max(n - 1, 1)) / (n * count)
    return Seeds(_variance(means), count - 1), shared


def _variance(values: Array) -> float:
    """Of their mean; 0 of one."""
    return float(values.var(ddof=1)) / len(values) if len(values) > 1 else 0.0


def freedom(parts: Sequence[Measured], examples: bool = False) -> float:
    """Satterthwaite's degrees of freedom of the sum of some means; infinite where seeds do not count.

    Args:
        parts: the means.
        examples: whether to count that the variance over examples is estimated, too, as resampling does by itself.
    """
    whole = sum(each.resting for each in parts)
    unsure = sum(each.resting**2 / max(len(each.pulls) - 1, 1) for each in parts) if examples else 0.0
    seeds = [part for each in parts for part in each.seeds if part.variance]
    if seeds:
        together = sum(part.variance for part in seeds)
        free = together**2 / sum(part.variance**2 / part.freedom for part in seeds)
        limit = together * free / float(special.chdtri(free, 1 - CAUTION))
        whole, unsure = whole + limit, unsure + limit**2 / free
    return whole**2 / unsure if unsure else np.inf


def pivots(parts: Sequence[Measured], seed: int, draws: int) -> Array:
    """How many standard errors the sum of some means is away from itself, draw by draw."""
    variance = sum(part.variance for part in parts)
    total = np.zeros(draws)
    for place, part in enumerate(parts):
        if part.resting:
            total += (part.resting / variance) ** 0.5 * _resampled(part, (seed, place), draws)
    free = freedom(parts)
    if np.isfinite(free):
        rng = np.random.default_rng((seed, len(parts)))
        shaken = sum(each.variance for part in parts for each in part.seeds) / variance
        total += shaken**0.5 * rng.standard_normal(draws)
        total /= (rng.chisquare(free, draws) / free) ** 0.5
    return total


def _resampled(part: Measured, seed: tuple[int, ...], draws: int) -> Array:
    """How many of its own standard errors each resampled mean lies from the mean.

    Examples are put in order first, so that no number depends on theirs.
    """
    order = np.lexsort((part.pulls, part.weights))
    pulls, weights = part.pulls[order], part.weights[order]
    n = len(pulls)
    moments = np.column_stack([weights, pulls, pulls**2, pulls * weights, weights**2])
    counts, rows = _counts(n, draws, seed), max(1, BLOCK // n)
    sums = np.concatenate([counts[first : first + rows] @ moments for first in range(0, draws, rows)]) / n
    heavy, moved = sums[:, 0], sums[:, 1] / sums[:, 0]
    spread = (sums[:, 2] - 2 * moved * sums[:, 3] + moved**2 * sums[:, 4]) / heavy**2
    own = float((pulls**2).mean())
    return moved / (((1 - KEPT) * np.maximum(spread, 0) + KEPT * own) / (n - 1)) ** 0.5


@functools.lru_cache(maxsize=1)  # the comparisons of one table share their draws
def _counts(n: int, draws: int, seed: tuple[int, ...]) -> NDArray[np.uint8]:
    """How often each of n examples is in each resample."""
    rng = np.random.default_rng(seed)
    counts, rows = np.empty((draws, n), np.uint8), max(1, BLOCK // n)
    for first in range(0, draws, rows):
        block = counts[first : first + rows]
        drawn = rng.integers(n, size=block.shape) + n * np.arange(len(block))[:, None]
        block[:] = np.bincount(drawn.ravel(), minlength=block.size).reshape(block.shape)
    return counts
