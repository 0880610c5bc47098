"""Drawings for the page, as SVG inside it: in the page's own ink, told apart by shape and stroke, not color alone."""

import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import cycle
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from tasks.bench.plain import visible
from tasks.bench.report.overall import Ranking

INK, RULE = "#0a0b0c", "#d0d1d2"
"""Stand for the page's colors of text and of thin lines, so that a dark page gets light ones."""
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", INK)
"""Okabe and Ito's, which people without color vision tell apart, less the yellow that a white page swallows."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h")
STROKES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
STYLE: dict[Any, Any] = {
    **{"svg.fonttype": "none", "text.parse_math": False, "font.family": "sans-serif", "font.size": 10},
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor"), INK),
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": RULE},
    **{"grid.linewidth": 0.6, "axes.linewidth": 0.8, "axes.axisbelow": True, "legend.frameon": False},
    **{"axes.titlesize": 10, "lines.linewidth": 1.6, "axes.unicode_minus": False},
}
PLAIN = FuncFormatter(lambda value, _: f"{value:.6g}")


class Look(NamedTuple):
    """How one method is drawn, in every drawing."""

    color: str
    marker: str
    stroke: Any


class Point(NamedTuple):
    """A method's cost and worth; `link` leads to what is known about it."""

    label: str
    cost: float
    worth: float
    spread: float
    link: str


class Curve(NamedTuple):
    """A method's loss over steps: the mean over seeds, and the band they are in."""

    label: str
    steps: Sequence[float]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def looks(labels: Iterable[str]) -> dict[str, Look]:
    """A look for each; color, marker and stroke repeat in periods of their own."""
    return {
        label: Look(*look)
        for label, look in zip(labels, zip(cycle(COLORS), cycle(MARKERS), cycle(STROKES)), strict=False)
    }


@matplotlib.rc_context(STYLE)
def pareto(
    costs: Mapping[str, Sequence[Point]], metric: str, lower: bool, drawn: Mapping[str, Look], about: str
) -> str:
    """Worth against each cost, with the front that no method is left and above of."""
    figure = _figure(8.6, 3.1)
    panels = figure.subplots(1, len(costs), squeeze=False)[0]
    names: dict[str, Any] = {}
    for axes, (cost, points) in zip(panels, costs.items(), strict=True):
        colors = [drawn[point.label].color for point in points]
        places = [[point.cost for point in points], [point.worth for point in points]]
        axes.errorbar(*places, [p.spread for p in points], fmt="none", ecolor=colors, elinewidth=1.2)
        for point in points:
            look = drawn[point.label]
            (names[point.label],) = axes.plot(
                *([point.cost], [point.worth], look.marker),
                **{"color": look.color, "markersize": 7, "markeredgecolor": INK, "markeredgewidth": 0.6, "zorder": 3},
            )
            names[point.label].set_url(f"#{point.link}" if point.link else None)
        front = _front(points, lower)
        axes.plot([p.cost for p in front], [p.worth for p in front], color=INK, linewidth=0.8, linestyle=":")
        _scaled(axes, [point.cost for point in points])
        axes.yaxis.set_major_formatter(PLAIN)
        axes.set_xlabel(cost)
    panels[0].set_ylabel(f"{metric} ({'less' if lower else 'more'} is better)")
    _legend(figure, names)
    return _svg(figure, about)


def _front(points: Sequence[Point], lower: bool) -> list[Point]:
    """The best at each cost that no cheaper one reaches."""
    sign = -1 if lower else 1
    found: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost, -sign * p.worth)):
        if not found or sign * point.worth > sign * found[-1].worth:
            found.append(point)
    return found


def _scaled(axes: Axes, costs: Sequence[float]) -> None:
    """Logarithmic, with a few ticks that are read without powers; some air where all cost the same."""
    axes.set_xscale("log")
    low, high = min(costs) / 1.6, max(costs) * 1.6
    axes.set_xlim(low, high)
    few = (
        LogLocator(subs=(1.0,) if high > 999 * low else (1.0, 3.0), numticks=12) if high > 30 * low else MaxNLocator(4)
    )
    axes.xaxis.set_major_locator(few)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_locator(NullLocator())


@matplotlib.rc_context(STYLE)
def curves(drawn_curves: Sequence[Curve], drawn: Mapping[str, Look], about: str) -> str:
    """The loss of training over steps."""
    figure = _figure(8.6, 3.0)
    axes = figure.subplots()
    names: dict[str, Any] = {}
    for curve in drawn_curves:
        look = drawn[curve.label]
        (names[curve.label],) = axes.plot(
            *(curve.steps, curve.mean),
            **{"color": look.color, "linestyle": look.stroke, "marker": look.marker, "markersize": 4},
            markevery=max(1, len(curve.steps) // 6),
        )
        if curve.low != curve.high:
            axes.fill_between(curve.steps, curve.low, curve.high, color=look.color, alpha=0.18, linewidth=0)
    means = [value for curve in drawn_curves for value in curve.mean if value > 0]
    if means and max(means) > 20 * min(means):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(PLAIN)
        axes.yaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("step")
    axes.set_ylabel("loss of training")
    _legend(figure, names)
    return _svg(figure, about)


@matplotlib.rc_context(STYLE)
def gates(steps: Sequence[int], layers: Mapping[str, Sequence[Sequence[float]]], about: str) -> str:
    """How far the gates of each layer stand open over training: a panel a layer, a line a head."""
    across = min(6, len(layers))
    down = math.ceil(len(layers) / across)
    figure = _figure(8.6, 0.8 + 1.25 * down)
    figure.subplots_adjust(right=0.99)
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, (name, heads) in zip(panels, layers.items(), strict=False):
        for head, stroke in zip(np.asarray(heads).T, cycle(STROKES), strict=False):
            axes.plot(steps, head, color=COLORS[0], linestyle=stroke, linewidth=0.9, alpha=0.85)
        axes.axhline(0, color=INK, linewidth=0.6)
        axes.set_title(visible(name), pad=2)
        axes.xaxis.set_major_locator(MaxNLocator(2, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(3))
    for axes in panels[len(layers) :]:
        axes.set_visible(False)
    panels[across * (down - 1)].set_xlabel("step")
    panels[0].set_ylabel("gate")
    return _svg(figure, about)


@matplotlib.rc_context(STYLE)
def critical(ranking: Ranking, drawn: Mapping[str, Look], about: str) -> str:
    """A critical-difference diagram: methods on a line of mean ranks, a bar over those that do not differ."""
    count = len(ranking.labels)
    left, depth = (count + 1) // 2, 0.34 * len(ranking.groups) + 0.3
    figure = _figure(8.6, 1.2 + 0.26 * left + 0.22 * len(ranking.groups))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    low, high = 1.0, float(max(count, 2))
    axes.set_xlim(low - 0.45 * (high - low), high + 0.45 * (high - low))
    axes.hlines(0, low, high, color=INK, linewidth=1)
    for tick in range(1, count + 1):
        axes.vlines(tick, 0, 0.14, color=INK, linewidth=1)
        axes.text(tick, 0.24, str(tick), ha="center", va="bottom")
    axes.hlines(1.0, low, min(high, low + ranking.difference), color=INK, linewidth=1.5)
    wide = "" if ranking.difference <= high - low else ", more than all ranks span"
    axes.text(low, 1.1, f"critical difference {ranking.difference:.2f}{wide}", va="bottom")
    for place, (label, rank) in enumerate(zip(ranking.labels, ranking.ranks, strict=True)):
        here = place < left
        y = -depth - 0.42 * (place if here else count - 1 - place)
        edge = low - 0.06 * (high - low) if here else high + 0.06 * (high - low)
        axes.plot([rank, rank, edge], [0, y, y], color=RULE, linewidth=1, zorder=1)
        look = {"color": drawn[label].color, "marker": drawn[label].marker, "edgecolor": INK, "linewidth": 0.6}
        axes.scatter([rank], [0], 40, zorder=3, **look)
        words = f"{_short(label)}  {rank:.2f}"
        axes.text(edge, y, words, ha="right" if here else "left", va="center")
    for row, group in enumerate(ranking.groups):
        ends = ranking.ranks[group[0]] - 0.02 * (high - low), ranking.ranks[group[-1]] + 0.02 * (high - low)
        axes.hlines(-0.3 - 0.3 * row, *ends, color=INK, linewidth=4)
    axes.set_ylim(-depth - 0.42 * left, 1.6)
    return _svg(figure, about)


def _figure(width: float, height: float) -> Figure:
    """With margins of fixed size; looking for better ones takes as long as drawing."""
    figure = Figure((width, height))
    figure.subplots_adjust(0.78 / width, 0.55 / height, 1 - 1.9 / width, 1 - 0.25 / height, wspace=0.2, hspace=0.4)
    return figure


def _legend(figure: Figure, names: Mapping[str, Any]) -> None:
    labels = [_short(label) for label in names]
    edge = 1 - 1.8 / figure.get_figwidth()
    figure.legend([*names.values()], labels, loc="upper left", bbox_to_anchor=(edge, 1), handlelength=2.6)


def _short(label: str) -> str:
    shown = visible(label)
    return shown if len(shown) <= 28 else f"{shown[:27]}…"


def _svg(figure: Figure, about: str) -> str:
    """The drawing as a part of the page; without dates and names, so that equal numbers give equal bytes."""
    target = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": about}):
        figure.savefig(target, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawn = target.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)
    drawn = drawn.replace("xlink:href", "href")
    used = set(re.findall(r"#([\w.-]+)", drawn))
    drawn = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", drawn)
    drawn = drawn.replace(INK, "currentColor").replace(RULE, "var(--rule)")
    size = re.search(r'viewBox="[^"]*"', drawn)
    name = escape(visible(about), quote=True)
    head = f'<svg {size[0] if size else ""} role="img" aria-label="{name}">'
    return re.sub(r"<svg.*?>", lambda _: f"{head}<title>{name}</title>", drawn, count=1, flags=re.DOTALL)
