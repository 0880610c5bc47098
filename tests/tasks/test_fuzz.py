"""Sixty hostile inputs for every entry point: each is accepted, or refused with a sentence, and harms nothing."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.tasks import fuzz
from tests.tasks.fuzz import ENTRIES, Fuzzer, Tally, fuzzer

FEW = {"store_report": 10}
"""Fewer of what draws a whole page of an input."""


@pytest.fixture(scope="module")
def watched() -> Iterator[Fuzzer]:
    with fuzzer() as one:
        yield one


@pytest.mark.parametrize("name", list(ENTRIES))
def test_a_hostile_input_is_accepted_or_refused(watched, name):
    watched.prepare(name)
    tally = Tally()
    for number in range(FEW.get(name, 60)):
        watched.one(name, number, tally)
    assert not tally.bugs
    assert tally.accepted, "a reader that refuses everything was not reached"
    assert tally.refused, "nothing hostile was among these inputs"


def outside(draw, folder):
    (folder.parent.parent / "zeroinit-fuzz-outside").touch()


def moves(draw, folder):
    os.rename(folder, folder.parent / "elsewhere")  # noqa: PTH104


def starts(draw, folder):
    subprocess.run(["true"], check=True)


def executes(draw, folder):
    exec(compile("1", str(folder / "foreign.py"), "exec"))


def speaks(draw, folder):
    print("\x1b[2J", file=sys.stderr)


def hangs(draw, folder):
    while time.process_time():
        pass


def breaks(draw, folder):
    raise KeyError("x")


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (outside, "open '"),
        (moves, "os.rename '"),
        (starts, "subprocess.Popen"),
        (executes, "compile "),
        (speaks, "the terminal gets"),
        (hangs, "it takes more than 0.2 seconds"),
        (breaks, "KeyError in tests/tasks/test_fuzz.py:"),
    ],
)
def test_what_an_input_must_not_do_is_seen(harm, told, watched, monkeypatch):
    monkeypatch.setattr(fuzz, "SECONDS", 0.2)
    monkeypatch.setitem(ENTRIES, "harm", harm)
    tally = Tally()
    watched.one("harm", 0, tally)
    (watched.base.parent / "zeroinit-fuzz-outside").unlink(missing_ok=True)
    if (watched.base / "elsewhere").is_dir():
        (watched.base / "elsewhere").rmdir()
    (found,) = tally.bugs
    assert found.startswith(told)
