"""What is drawn of a table: worth against cost, the loss of training, and how far gates stand open."""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.bench.report import plots
from tasks.bench.report.compared import seconds
from tasks.bench.report.found import log
from tasks.bench.report.sheet import Column, Sheet, number, word
from tasks.bench.report.tables import Line, Table
from tasks.bench.store import Store

BINS = 60
"""Points of a curve; the losses between two are averaged."""
SEEDS = 10
"""Seeds of a curve's band at most."""


class Gates(NamedTuple):
    """The gates of one line's first seed."""

    label: str
    drawing: str
    last: Sheet


def pareto(table: Table, looks: Mapping[str, plots.Look], links: Mapping[Line, str]) -> str:
    """The first metric against parameters and seconds; empty where fewer than two methods were trained."""
    metric = table.first
    if metric is None:
        return ""
    points: dict[str, list[plots.Point]] = {"trainable parameters": [], "seconds of training": []}
    for line in table.lines:
        found = line.spread(metric)
        if found and line.trains:
            for name, cost in zip(points, (line.fact("trainable_params"), seconds(line)), strict=True):
                if cost:
                    points[name].append(plots.Point(line.label, cost, found.mean, found.sd or 0.0, links.get(line, "")))
    points = {name: each for name, each in points.items() if len(each) > 1}
    lower = metric in table.task.lower
    about = f"{table.name}, {table.where}: {metric} against {' and '.join(points)}"
    return plots.pareto(points, metric, lower, looks, about) if points else ""


def curves(table: Table, store: Store, looks: Mapping[str, plots.Look]) -> str:
    """The loss of training; empty where nothing was trained."""
    found = [curve for line in table.lines if (curve := _curve(line, store))]
    about = f"{table.name}, {table.where}: the loss of training over steps"
    return plots.curves(found, looks, about) if found else ""


def _curve(line: Line, store: Store) -> plots.Curve | None:
    losses = [np.asarray(log(store, cell).get("loss", ()), float) for cell in line.cells[:SEEDS]]
    length = min(map(len, losses))
    if not length:
        return None
    edges = np.linspace(0, length, min(BINS, length) + 1).astype(int)
    steps = [(low + high + 1) / 2 for low, high in itertools.pairwise(edges)]
    binned = np.array([_means(loss[:length], edges) for loss in losses])
    return plots.Curve(line.label, steps, binned.mean(0).tolist(), binned.min(0).tolist(), binned.max(0).tolist())


def _means(values: NDArray[np.float64], edges: NDArray[np.int_]) -> NDArray[np.float64]:
    return np.add.reduceat(values, edges[:-1]) / np.diff(edges)


def gates(table: Table, store: Store) -> list[Gates]:
    """Of every line whose method has gates: all of training as a drawing, the end as numbers."""
    found = []
    for line in table.lines:
        seen = log(store, line.cells[0]).get("gates") if line.trains else None
        if seen:
            found.append(_gates(table, line, seen))
    return found


def _gates(table: Table, line: Line, seen: Sequence[tuple[int, Mapping[str, Sequence[float]]]]) -> Gates:
    steps = [step for step, _ in seen]
    names = {path: _layer(path) for path in seen[0][1]}
    if len(set(names.values())) < len(names):
        names = {path: path for path in names}
    layers: dict[str, Any] = {name: [heads[path] for _, heads in seen] for path, name in names.items()}
    about = f"{table.name}, {table.where}: gates of {line.label} over training, seed {line.cells[0].config['seed']}"
    heads = max(len(values[-1]) for values in layers.values())
    columns = [Column("layer", words=True), *(Column(f"head {head}") for head in range(heads))]
    rows = [
        [word(name), *(number(value, f"{value:+.3f}") for value in values[-1])]
        + [number(None, "")] * (heads - len(values[-1]))
        for name, values in layers.items()
    ]
    last = Sheet("", f"gates of {line.label} at the end", f"step {steps[-1]}", columns, rows)
    return Gates(line.label, plots.gates(steps, layers, about), last)


def _layer(path: str) -> str:
    """A layer by its number, the first in its path; by the path where it has none."""
    found = re.search(r"\.(\d+)(\.|$)", path)
    return f"layer {found[1]}" if found else path
