"""Who is best, and who is not significantly worse: paired tests on the examples that all lines of a table answered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.bench.report.tables import Line, Table
from tasks.bench.significance import holm, mcnemar
from tasks.bench.stats import detectable, detectable_alone, paired
from tasks.bench.store import Store

ALPHA = 0.05
MCNEMAR, PAIRED = "McNemar's exact test", "paired tests over examples and seeds"

Scores = NDArray[np.float64]
"""Of one line: a row a seed, a column an example."""


@dataclass(frozen=True)
class Examples:
    """One metric, example by example.

    Attributes:
        scores: by line, turned so that more is better.
        weights: of the examples.
    """

    scores: Mapping[Line, Scores]
    weights: Scores


@dataclass(frozen=True)
class Verdict:
    """What is known about the best number of a column.

    Attributes:
        held: the best lines, and those not significantly worse.
        test: how that was found; empty where there was no test.
        examples: how many all lines had in common.
        detectable: the smallest difference that could have been found.
    """

    held: frozenset[Line]
    test: str = ""
    examples: int = 0
    detectable: float | None = None


class _Trial(NamedTuple):
    """A line against the best of its column."""

    metric: str
    line: Line
    test: str
    p: float


def judge(table: Table, known: Mapping[str, Examples]) -> dict[str, Verdict]:
    """A verdict for each headline metric from what is known example by example; two protocols are not judged."""
    if len(table.fingerprints) > 1:
        return {metric: Verdict(frozenset()) for metric in table.metrics}
    best = {metric: _best(table, metric) for metric in table.metrics if metric not in table.task.neutral}
    known = {metric: one for metric, one in known.items() if metric in best}
    trials = [trial for metric, one in known.items() for trial in _trials(metric, one, best[metric])]
    adjusted = holm([trial.p for trial in trials]) if trials else []
    held = {(trial.metric, trial.line) for trial, p in zip(trials, adjusted, strict=True) if p > ALPHA}
    return {
        metric: Verdict(
            frozenset(best.get(metric, ())) | {line for line in table.lines if (metric, line) in held},
            " and ".join(sorted({trial.test for trial in trials if trial.metric == metric})),
            known[metric].weights.size if metric in known else 0,
            _detectable(known[metric], best[metric]) if metric in known else None,
        )
        for metric in table.metrics
    }


def _best(table: Table, metric: str) -> list[Line]:
    """The line with the best mean, or all that share it."""
    turned = table.better(metric)
    means = {line: turned(mean) for line in table.lines if (mean := line.mean(metric)) is not None}
    return [line for line, mean in means.items() if mean == max(means.values())]


def _trials(metric: str, known: Examples, best: Sequence[Line]) -> list[_Trial]:
    first = known.scores[best[0]]
    return [
        _Trial(metric, line, *_test(first, scores, known.weights))
        for line, scores in known.scores.items()
        if line not in best
    ]


def _test(one: Scores, other: Scores, weights: Scores) -> tuple[str, float]:
    """McNemar's where each was right or wrong once; else the paired test, which knows weights and seeds."""
    levels = np.unique(np.concatenate([one.ravel(), other.ravel()]))
    if len(one) == len(other) == 1 and len(levels) <= 2 and (weights == weights[0]).all():
        return MCNEMAR, mcnemar(one[0] == levels[-1], other[0] == levels[-1])
    return PAIRED, paired(one, other, weights).p


def _detectable(known: Examples, best: Sequence[Line]) -> float | None:
    """Of the best line and the next one; with one line, of another like it."""
    order = sorted(known.scores, key=lambda line: -float(np.average(known.scores[line].mean(0), weights=known.weights)))
    rivals = [line for line in order if line != best[0]]
    first = known.scores[best[0]]
    if rivals:
        return detectable(first, known.scores[rivals[0]], known.weights)
    return detectable_alone(first, known.weights)


def examples(table: Table, store: Store) -> dict[str, Examples]:
    """The headline metrics that are means over examples, on the examples that all lines have."""
    told = {line: [_terms(table, store.records(cell.name, "report")) for cell in line.cells] for line in table.lines}
    found = {}
    for metric in table.metrics:
        lines = {line: [each[metric] for each in seeds] for line, seeds in told.items() if line.spread(metric)}
        if all(each is not None for seeds in lines.values() for each in seeds):
            found[metric] = _aligned(table, metric, lines)
    return {metric: one for metric, one in found.items() if one is not None}


Terms = dict[Any, tuple[float, float]]
"""Value and weight by example."""


def _terms(table: Table, records: Sequence[Mapping[str, Any]]) -> dict[str, Terms | None]:
    """By metric; None where it is no mean over examples."""
    found: dict[str, Terms | None] = {}
    ids = [record["id"] for record in records]
    for metric in table.metrics:
        terms = table.task.terms([*map(dict, records)], metric)
        found[metric] = None if terms is None else dict(zip(ids, terms, strict=True))
    return found


def _aligned(table: Table, metric: str, lines: Mapping[Line, Sequence[Any]]) -> Examples | None:
    """Everything in one order of examples; None where they weigh differently, as by two tokenizers, or none is left."""
    seeds = [terms for each in lines.values() for terms in each]
    shared = [key for key in seeds[0] if all(key in terms for terms in seeds)]
    weights = np.array([[terms[key][1] for key in shared] for terms in seeds])
    if not shared or (weights != weights[0]).any() or not weights[0].sum():
        return None
    turned = table.better(metric)
    scores = {
        line: np.array([[turned(terms[key][0]) for key in shared] for terms in each]) for line, each in lines.items()
    }
    return Examples(scores, weights[0])
