"""The 95% intervals hold the truth 95 times in 100: on simulated scores like the suite's, whose truth is known."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from tasks.bench import significance, stats

Draw = Callable[[np.random.Generator], tuple[Any, float]]
"""Simulates one study: its interval's function with its arguments, and the truth."""


def crossed(rng, mean, seeds, examples, *, seed_sd=0.0, example_sd=0.0, noise_sd=1.0, shared=None):
    """A skill of (seeds, examples), normal over seeds, over examples (unless `shared` says theirs) and over both."""
    part = rng.normal(0, example_sd, examples) if shared is None else shared
    return mean + rng.normal(0, seed_sd, (seeds, 1)) + part + rng.normal(0, noise_sd, (seeds, examples))


def right(latent):
    """An accuracy: right where the skill is above 0."""
    return (latent > 0).astype(float)


def accuracy(mean, *sds):
    return norm.cdf(mean / np.sqrt(sum(sd**2 for sd in sds)))


def clipped(latent):
    """A score like F1: in 0 to 1, with mass at both ends."""
    return latent.clip(0, 1)


def clipped_mean(mean, *sds):
    sd = np.sqrt(sum(sd**2 for sd in sds))
    low, high = (0 - mean) / sd, (1 - mean) / sd
    inner = mean * (norm.cdf(high) - norm.cdf(low)) - sd * (norm.pdf(high) - norm.pdf(low))
    return inner + norm.sf(high)


def likelihoods(rng, examples, shift=0.0, spread=0.4, base=None):
    """Nats a token, lower in long responses, and the tokens."""
    log_tokens = rng.normal(3.5, 0.8, examples) if base is None else np.log(base)
    return np.exp(shift - 0.25 * (log_tokens - 3.5) + rng.normal(0, spread, examples)), np.exp(log_tokens)


def likelihood_mean(shift=0.0, spread=0.4):
    return np.exp(shift + ((0.75**2 - 1) * 0.8**2 + spread**2) / 2)


def one_accuracy(mean, examples) -> Draw:
    return lambda rng: ((stats.interval, right(crossed(rng, mean, 1, examples))), accuracy(mean, 1))


def one_f1(examples) -> Draw:
    return lambda rng: (
        (stats.interval, clipped(crossed(rng, 1.0, 1, examples, noise_sd=0.8))),
        clipped_mean(1.0, 0.8),
    )


def one_likelihood(examples) -> Draw:
    return lambda rng: ((stats.interval, *likelihoods(rng, examples)), likelihood_mean())


def seeds_of_accuracy(seeds, examples, seed_sd) -> Draw:
    sds = {"seed_sd": seed_sd, "example_sd": 0.8, "noise_sd": 0.6}
    return lambda rng: (
        (stats.interval, right(crossed(rng, 0.7, seeds, examples, **sds))),
        accuracy(0.7, *sds.values()),
    )


def seeds_of_f1(seeds, examples, seed_sd) -> Draw:
    sds = {"seed_sd": seed_sd, "example_sd": 0.5, "noise_sd": 0.4}
    return lambda rng: (
        (stats.interval, clipped(crossed(rng, 0.8, seeds, examples, **sds))),
        clipped_mean(0.8, *sds.values()),
    )


def difference_of_accuracies(examples, seeds=(1, 1), seed_sds=(0.0, 0.0)) -> Draw:
    def draw(rng):
        shared = rng.normal(0, 0.9, examples)
        one, other = (
            right(crossed(rng, mean, n, examples, seed_sd=sd, noise_sd=0.5, shared=shared))
            for mean, n, sd in zip((0.8, 0.6), seeds, seed_sds, strict=True)
        )
        truth = accuracy(0.8, seed_sds[0], 0.9, 0.5) - accuracy(0.6, seed_sds[1], 0.9, 0.5)
        return (stats.paired, one, other), truth

    return draw


def difference_of_f1(examples, seeds=(1, 1), seed_sd=0.0) -> Draw:
    def draw(rng):
        shared = rng.normal(0, 0.6, examples)
        one, other = (
            clipped(crossed(rng, mean, n, examples, seed_sd=seed_sd, noise_sd=0.4, shared=shared))
            for mean, n in zip((1.0, 0.9), seeds, strict=True)
        )
        sds = (seed_sd, 0.6, 0.4)
        return (stats.paired, one, other), clipped_mean(1.0, *sds) - clipped_mean(0.9, *sds)

    return draw


def difference_of_likelihoods(examples) -> Draw:
    def draw(rng):
        one, tokens = likelihoods(rng, examples, 0.05, 0.5)
        other, _ = likelihoods(rng, examples, base=tokens)
        return (stats.paired, one, other, tokens), likelihood_mean(0.05, 0.5) - likelihood_mean()

    return draw


def suite(seeds, seed_sd) -> Draw:
    means, sds = (0.2, 0.6, 1.0, 1.4), {"seed_sd": seed_sd, "example_sd": 0.8, "noise_sd": 0.6}
    truth = np.mean([accuracy(mean, *sds.values()) for mean in means])
    return lambda rng: (
        (stats.suite_interval, [right(crossed(rng, mean, seeds, 60, **sds)) for mean in means]),
        truth,
    )


STUDIES = {
    "accuracy of 60%": one_accuracy(0.25, 100),
    "accuracy of 90%": one_accuracy(1.28, 200),
    "skewed F1": one_f1(100),
    "nll by tokens": one_likelihood(200),
    "accuracy, 3 seeds, of which little depends": seeds_of_accuracy(3, 100, 0.05),
    "accuracy, 3 seeds": seeds_of_accuracy(3, 100, 0.2),
    "accuracy, 3 seeds, of which much depends": seeds_of_accuracy(3, 100, 0.4),
    "accuracy, 5 seeds": seeds_of_accuracy(5, 100, 0.2),
    "F1, 3 seeds": seeds_of_f1(3, 100, 0.1),
    "F1, 5 seeds": seeds_of_f1(5, 100, 0.2),
    "difference of accuracies": difference_of_accuracies(200),
    "difference of F1": difference_of_f1(100),
    "difference of nll by tokens": difference_of_likelihoods(200),
    "difference of accuracies, 3 seeds": difference_of_accuracies(100, (3, 3), (0.15, 0.15)),
    "difference of accuracies, 3 seeds, one steady": difference_of_accuracies(100, (3, 3), (0.3, 0.0)),
    "difference of accuracies, 5 and 3 seeds": difference_of_accuracies(100, (5, 3), (0.15, 0.3)),
    "difference of accuracies, 3 seeds and a frozen model": difference_of_accuracies(100, (3, 1), (0.15, 0.0)),
    "difference of F1, 5 seeds": difference_of_f1(100, (5, 5), 0.1),
    "suite of 4 tasks, 3 seeds": suite(3, 0.2),
    "suite of 4 tasks, 5 seeds": suite(5, 0.2),
}


def coverage(study: Draw, simulations: int, draws: int) -> float:
    """How often the interval holds the truth; every 50 simulations other resamples are drawn."""
    rng, held = np.random.default_rng(11), 0
    for number in range(simulations):
        (function, *given), truth = study(rng)
        found = function(*given, seed=number // 50, draws=draws)
        held += found.low is not None and found.low <= truth <= found.high
    return held / simulations


@pytest.mark.parametrize("name", list(STUDIES)[2::3])
def test_intervals_cover(name):
    assert 0.90 <= coverage(STUDIES[name], 250, 499) <= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_intervals_cover_in_two_thousand_simulations(name):
    found = coverage(STUDIES[name], 2000, stats.DRAWS)
    print(f"{name}: {100 * found:.1f}%")
    assert 0.93 <= found <= 0.97


def equals(rng, methods, seeds, examples, measured) -> list[np.ndarray]:
    """Methods that are equally good, and alike on the same examples."""
    shared = rng.normal(0, 0.8, examples)
    seed_sd = 0.15 if seeds > 1 else 0.0  # a single seed is taken as it is, so it must be as good as the others
    return [
        measured(crossed(rng, 0.5, seeds, examples, seed_sd=seed_sd, noise_sd=0.6, shared=shared))
        for _ in range(methods)
    ]


def family_errors(methods, seeds, measured, simulations) -> tuple[float, float]:
    """How often Holm tells any from one that is as good, and how often any is said to be worse than the best."""
    rng, different, worse = np.random.default_rng(12), 0, 0
    for number in range(simulations):
        systems = equals(rng, methods, seeds, 100, measured)
        ps = [significance.difference(systems[0], other, seed=number // 50) for other in systems[1:]]
        different += min(significance.holm(ps)) <= 0.05
        worse += not all(significance.not_worse(systems, seed=number // 50))
    return different / simulations, worse / simulations


FAMILIES = {
    "5 accuracies": (5, 1, right),
    "5 F1": (5, 1, clipped),
    "10 likelihoods": (10, 1, np.exp),
    "5 accuracies, 3 seeds": (5, 3, right),
    "5 F1, 5 seeds": (5, 5, clipped),
}


@pytest.mark.parametrize("name", ["5 F1", "5 accuracies, 3 seeds"])
def test_a_family_of_tests_errs_as_rarely_as_one(name):
    assert max(family_errors(*FAMILIES[name], 200)) <= 0.05 + 3 * (0.05 * 0.95 / 200) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_errs_as_rarely_as_one_in_two_thousand_simulations(name):
    different, worse = family_errors(*FAMILIES[name], 2000)
    print(f"{name}: Holm {100 * different:.1f}%, worse than the best {100 * worse:.1f}%")
    assert max(different, worse) <= 0.05 + 2 * (0.05 * 0.95 / 2000) ** 0.5
