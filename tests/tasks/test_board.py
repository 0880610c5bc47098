"""Progress: bars on a terminal, lines elsewhere, a time left that follows the weights, and a table that fills."""

import fcntl
import io
import os
import select
import struct
import sys
import termios
import time

import pytest

from tasks.bench import board as boards
from tasks.bench import progress
from tasks.bench.attempt import Ended
from tasks.bench.board import Board


class Clock:
    """Time that passes when it is told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(boards.time, "monotonic", clock)
    return clock


def test_a_line_for_each_cell_with_the_time_left_by_weight(capsys, clock):
    board = Board({"a": 10.0, "b": 30.0})
    clock.now += 10
    board.ended("a", Ended("done", "f1 50.0"))
    clock.now += 20
    board.ended("b", Ended("failed", "failed: no"))
    assert capsys.readouterr().err == "[1/2] a: f1 50.0, about 00:30 left\n[2/2] b: failed: no\n"


def test_an_end_is_one_line_without_escapes(capsys, clock):
    Board({"a": 1.0}).ended("a", Ended("failed", "failed: \x1b[31mred\nand a line"))
    assert capsys.readouterr().err == "[1/1] a: failed: \ufffd[31mred and a line\n"


def test_a_line_about_what_runs_at_most_every_half_minute(capsys, clock):
    board = Board({"a": 10.0, "b": 10.0})
    for _ in range(100):
        clock.now += 1
        board.moved("a", "train", int(clock.now - 1000), 180)
        board.tick()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(";")[0] for line in lines] == ["a train 31/180", "a train 62/180", "a train 93/180"]
    # A trained cell is nine tenths through: 31/180 of that, of one of two cells, took 31 s.
    assert lines[0].endswith("about 06:09 left")


def test_an_evaluation_or_another_trial_takes_nothing_back(clock):
    board = Board({"a": 10.0})
    board.moved("a", "train", 50, 100)
    board.moved("a", "evaluate", 1, 100)
    board.moved("a", "train", 1, 100)
    assert board._behind() == pytest.approx(4.5)


def test_the_table_fills_at_most_every_twenty_seconds_and_never_takes_long(clock):
    filled: list[float] = []

    def fill() -> None:
        filled.append(clock.now)
        clock.now += slow

    board, slow = Board(dict.fromkeys("abcdefgh", 1.0), fill), 0.0
    for name, wait, slow in (("a", 1, 0), ("b", 1, 0), ("c", 20, 2), ("d", 21, 0), ("e", 22, 0)):  # noqa: B007
        clock.now += wait
        board.ended(name, Ended("done", ""))
    assert filled == [1001, 1022, 1067]  # the second took 2 s, so the next is 40 s later


def test_bars_on_a_terminal(monkeypatch):
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    with os.fdopen(theirs, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        board = Board({"cell-a": 1.0, "cell-b": 3.0})
        for done in range(3):
            board.moved("cell-a", "train", done, 4)
            board.moved("cell-b", "evaluate", done, 7)
            time.sleep(0.15)
            board.tick()
        board.ended("cell-a", Ended("done", "f1 50.0"))
        board.close()
        said = ""
        while select.select([ours], [], [], 0.2)[0]:
            said += os.read(ours, 1 << 16).decode()
    os.close(ours)
    for part in ("0/2 cells", "1/2 cells", "cell-a train", "cell-b evaluate", "2/7", "[1/2] cell-a: f1 50.0", " 25%|"):
        assert part in said
    assert said.replace("\x1b[A", "").rsplit("\r", 2)[-2:] in ([" " * 99, ""], [" " * 100, ""])  # bars are taken away


def test_a_loop_draws_or_tells(monkeypatch, capsys):
    assert list(progress.progress(range(3), "train")) == [0, 1, 2]
    assert capsys.readouterr().err == ""  # away from a terminal, and quick
    told: list[tuple[str, int, int]] = []
    monkeypatch.setattr(progress, "PACE", 0)
    progress.send_to(lambda *word: told.append(word))
    try:
        assert list(progress.progress(range(3), "train")) == [0, 1, 2]
    finally:
        progress.send_to(None)
    assert told[0] == ("train", 0, 3)
    assert told[-1] == ("train", 2, 3)
    monkeypatch.setattr(sys, "stderr", terminal := io.StringIO())
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    list(progress.progress(range(3), "train"))
    assert "train: 100%" in terminal.getvalue() or "train:   0%" in terminal.getvalue()
