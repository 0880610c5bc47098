"""Who is best, and who is not significantly worse: paired tests on the examples that all lines of a table answered."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.bench.errors import InputError
from tasks.bench.report.found import Found
from tasks.bench.report.tables import Line, Table
from tasks.bench.significance import difference, holm, is_exact
from tasks.bench.stats import LEVEL, detectable, detectable_alone
from tasks.bench.store import Store
from tasks.bench.task import Record

MCNEMAR, PAIRED = "McNemar's exact test", "resampling of paired examples, seeds by their variance"

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
    # Which one is the best was seen in the same scores, so that every pair of lines counts (`significance.not_worse`).
    pairs = sum(len(one.scores) * (len(one.scores) - 1) // 2 for one in known.values())
    adjusted = holm([trial.p for trial in trials], pairs) if trials else []
    held = {(trial.metric, trial.line) for trial, p in zip(trials, adjusted, strict=True) if p > LEVEL}
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
    means = {line: turned(mean) for line in table.rivals if (mean := line.mean(metric)) is not None}
    return [line for line, mean in means.items() if mean == max(means.values())]


def _trials(metric: str, known: Examples, best: Sequence[Line]) -> list[_Trial]:
    first, weights = known.scores[best[0]], known.weights
    rivals = {line: scores for line, scores in known.scores.items() if line not in best}
    return [
        _Trial(
            metric,
            line,
            MCNEMAR if is_exact(first, scores, weights) else PAIRED,
            difference(first, scores, weights),
        )
        for line, scores in rivals.items()
    ]


def _detectable(known: Examples, best: Sequence[Line]) -> float | None:
    """Of the best line and the next one; with one line, of another like it."""
    order = sorted(known.scores, key=lambda line: -float(np.average(known.scores[line].mean(0), weights=known.weights)))
    rivals = [line for line in order if line != best[0]]
    first = known.scores[best[0]]
    if rivals:
        return detectable(first, known.scores[rivals[0]], known.weights)
    return detectable_alone(first, known.weights)


def examples(table: Table, store: Store) -> dict[str, Examples]:
    """The headline metrics that are means over examples, on the examples that all rivals have."""
    told = {line: [_answers(table, store, cell) for cell in line.cells] for line in table.rivals}
    found = {}
    for metric in table.metrics:
        lines = {line: seeds for line, seeds in told.items() if line.spread(metric)}
        if lines and all(metric in answers.terms for seeds in lines.values() for answers in seeds):
            found[metric] = _aligned(table, metric, lines)
    return {metric: one for metric, one in found.items() if one is not None}


class _Answers(NamedTuple):
    """A cell's examples, and the value and weight of each in the metrics that are means over them."""

    ids: list[str]
    terms: dict[str, Scores]


def _answers(table: Table, store: Store, cell: Found) -> _Answers:
    records = store.records(cell.name, "report")
    try:
        return _weighed(table, records)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        place = store.cells / cell.name
        raise InputError(
            f"{place}/report.jsonl.gz holds no records of {table.name} ({error!r}): remove its folder, and the cell "
            "runs again"
        ) from None


def _weighed(table: Table, records: Sequence[Record]) -> _Answers:
    terms = {metric: table.task.terms(records, metric) for metric in table.metrics}
    arrays = {
        metric: np.fromiter(itertools.chain.from_iterable(parts), float).reshape(-1, 2)
        for metric, parts in terms.items()
        if parts is not None
    }
    ids = [record["id"] for record in records]
    if not all(isinstance(name, str) for name in ids):
        raise TypeError("an id is no text")
    return _Answers(ids, arrays)


def _aligned(table: Table, metric: str, lines: Mapping[Line, Sequence[_Answers]]) -> Examples | None:
    """Everything in one order of examples.

    None where they weigh differently, as by two tokenizers, where one is not finite, or none is left.
    """
    cells = [answers for seeds in lines.values() for answers in seeds]
    shared = cells[0].ids
    if any(answers.ids != shared for answers in cells):
        common = set.intersection(*(set(answers.ids) for answers in cells))
        shared = [name for name in shared if name in common]
    terms = {line: np.stack([_ordered(answers, metric, shared) for answers in seeds]) for line, seeds in lines.items()}
    weights = next(iter(terms.values()))[0, :, 1]
    if not weights.sum() or any((part[:, :, 1] != weights).any() for part in terms.values()):
        return None
    if (weights < 0).any() or not all(np.isfinite(part).all() for part in terms.values()):
        return None
    turned = table.better(metric)
    sign = turned(1.0)
    return Examples({line: sign * part[:, :, 0] for line, part in terms.items()}, weights)


def _ordered(answers: _Answers, metric: str, shared: list[str]) -> Scores:
    """A cell's terms in that order of examples."""
    if answers.ids == shared:
        return answers.terms[metric]
    place = {name: row for row, name in enumerate(answers.ids)}
    return answers.terms[metric][[place[name] for name in shared]]
