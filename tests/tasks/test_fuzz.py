"""Sixty hostile inputs for every entry point: each is accepted, or refused with a sentence, and harms nothing."""

from collections.abc import Iterator

import pytest

from tests.tasks.fuzz import ENTRIES, Fuzzer, Tally, fuzzer

FEW = {"store_report": 10}
"""Fewer of what draws a whole page of an input."""


@pytest.fixture(scope="module")
def watched() -> Iterator[Fuzzer]:
    with fuzzer() as one:
        yield one


@pytest.mark.parametrize("name", ENTRIES)
def test_a_hostile_input_is_accepted_or_refused(watched, name):
    watched.prepare(name)
    tally = Tally()
    for number in range(FEW.get(name, 60)):
        watched.one(name, number, tally)
    assert not tally.bugs
    assert tally.accepted, "a reader that refuses everything was not reached"
    assert tally.refused, "nothing hostile was among these inputs"


def test_what_an_input_must_not_do_is_seen(watched, monkeypatch):
    import os
    import subprocess
    import sys
    import time

    from tests.tasks import fuzz

    def outside(draw, folder):
        (folder.parent.parent / "zeroinit-fuzz-outside").touch()

    def runs(draw, folder):
        subprocess.run(["true"], check=True)

    def loads(draw, folder):
        exec(compile("1", str(folder / "foreign.py"), "exec"))

    def overwrites(draw, folder):
        os.rename(folder, folder.parent / "elsewhere")  # noqa: PTH104

    def speaks(draw, folder):
        print("\x1b[2J", file=sys.stderr)

    def hangs(draw, folder):
        while time.process_time():
            pass

    def breaks(draw, folder):
        raise KeyError("x")

    monkeypatch.setattr(fuzz, "SECONDS", 0.2)
    told = {
        outside: "open",
        runs: "subprocess.Popen",
        loads: "compile",
        overwrites: "os.rename",
        speaks: "the terminal gets",
        hangs: "it takes more than",
        breaks: "KeyError in tests/tasks/test_fuzz.py",
    }
    for does, problem in told.items():
        monkeypatch.setitem(ENTRIES, does.__name__, does)
        tally = Tally()
        watched.one(does.__name__, 0, tally)
        (found,) = tally.bugs
        assert found.startswith(problem), found
        for left in (watched.base.parent / "zeroinit-fuzz-outside", watched.base / "elsewhere"):
            if left.is_dir():
                left.rmdir()
            left.unlink(missing_ok=True)
