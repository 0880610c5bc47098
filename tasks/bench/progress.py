"""How far a loop is: a bar with the time left, away from a terminal a line now and then, or word to whoever asked."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from tqdm import tqdm

Tell = Callable[[str, int, int], None]
"""What is being done, and how many of how many steps are over."""
PACE = 0.5
"""Seconds between two words."""

_tell: Tell | None = None


def send_to(tell: Tell | None) -> None:
    """From now on this process draws no bars, and tells of its loops instead; None: it draws again."""
    global _tell
    _tell = tell


def progress(steps: Any, what: str) -> Any:
    """The steps of a loop, with word of how far it is."""
    if _tell is not None:
        return _told(steps, what, _tell)
    here = sys.stderr.isatty()
    # Read here and not by tqdm, which looks at it once, when it is imported.
    quiet = bool(os.environ.get("TQDM_DISABLE"))
    pace = 0.1 if here else 30
    return tqdm(steps, desc=what, mininterval=pace, delay=0 if here else pace, leave=False, disable=quiet)


def _told(steps: Any, what: str, tell: Tell) -> Iterator[Any]:
    last = time.monotonic()
    tell(what, 0, len(steps))
    for done, step in enumerate(steps):
        if time.monotonic() - last >= PACE:
            last = time.monotonic()
            tell(what, done, len(steps))
        yield step
