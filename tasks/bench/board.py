"""What a suite's user sees while it runs: a bar for all cells and one for each that is computed, with the time left.

Away from a terminal: a line as a cell ends, and now and then one for those that are computed.
"""

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from tqdm import tqdm

from tasks.bench.attempt import Ended
from tasks.bench.plain import visible

PACE = 30
"""Seconds between two lines about what is computed."""
FILL = 20
"""Seconds between two tables while cells finish."""
TRAINED = 0.9
"""The share of its work that a cell has behind it when it is trained."""
BAR = "{desc}{percentage:3.0f}%|{bar}| {elapsed}<{remaining}"


class Board:
    """Cells by their weight, which is the share of the suite's time that each takes; `fill` is called as they end."""

    def __init__(self, weights: Mapping[str, float], fill: Callable[[], None] = lambda: None) -> None:
        self.weights, self.fill = dict(weights), fill
        self.shares: dict[str, float] = {}
        self.words: dict[str, tuple[str, int, int]] = {}
        self.bars: dict[str, Any] = {}
        self.over = 0
        self.spoke = self.began = time.monotonic()
        self.filled, self.pause = -float("inf"), 0.0
        self.here = sys.stderr.isatty()
        # Without smoothing, because cells of one suite are of unlike length.
        whole = max(sum(self.weights.values()), 1e-9)
        self.suite = tqdm(total=whole, smoothing=0, bar_format=BAR, disable=not self.here, leave=False, file=sys.stderr)

    def moved(self, cell: str, what: str, done: int, total: int) -> None:
        """So many of the steps of what a cell does now are over."""
        if what == "train" and total:
            self.shares[cell] = max(self.shares.get(cell, 0.0), TRAINED * done / total)
        if self.here:
            self._draw(cell, what, done, total)
        self.words[cell] = (what, done, total)

    def _draw(self, cell: str, what: str, done: int, total: int) -> None:
        before = self.words.get(cell)
        if before is None:
            self.bars[cell] = tqdm(total=total, desc=f"{cell} {what}", leave=False, file=sys.stderr)
        elif (before[0], before[2]) != (what, total):
            self.bars[cell].reset(total)
            self.bars[cell].set_description(f"{cell} {what}", refresh=False)
        self.bars[cell].update(done - self.bars[cell].n)

    def ended(self, cell: str, how: Ended) -> None:
        """A cell is over, here or elsewhere."""
        self.over += 1
        self.shares[cell] = 1.0
        self.words.pop(cell, None)
        if bar := self.bars.pop(cell, None):
            bar.close()
        left = f", {self._left()}" if self.over < len(self.weights) else ""
        tqdm.write(visible(f"[{self.over}/{len(self.weights)}] {cell}: {how.told}{left}"), file=sys.stderr)
        self.spoke = time.monotonic()
        if self.spoke - self.filled > max(FILL, 20 * self.pause):
            self.fill()
            self.filled = time.monotonic()
            self.pause = self.filled - self.spoke
        self.tick()

    def tick(self) -> None:
        """Time has passed."""
        self.suite.set_description(f"{self.over}/{len(self.weights)} cells", refresh=False)
        self.suite.update(self._behind() - self.suite.n)
        self.suite.refresh()
        if not self.here and self.words and time.monotonic() - self.spoke > PACE:
            now = [f"{cell} {what} {done}/{total}" for cell, (what, done, total) in self.words.items()]
            print(f"{'; '.join(now)}; {self._left()}", file=sys.stderr)
            self.spoke = time.monotonic()

    def close(self) -> None:
        """The bars go away; what was written stays."""
        for bar in (*self.bars.values(), self.suite):
            bar.close()

    def _behind(self) -> float:
        return sum(self.weights[cell] * share for cell, share in self.shares.items())

    def _left(self) -> str:
        behind = self._behind()
        if not behind:
            return "time left unknown"
        seconds = (time.monotonic() - self.began) * (sum(self.weights.values()) - behind) / behind
        return f"about {tqdm.format_interval(round(seconds))} left"
