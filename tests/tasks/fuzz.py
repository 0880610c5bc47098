"""Feed hostile inputs to every entry point that reads what a stranger wrote.

    python -m tests.tasks.fuzz [--seconds N | --inputs N] [--only NAME] [--seed 0] [--number K]

An input is accepted, or refused with a sentence. Anything else is a bug, and so is what takes more than ten seconds,
writes outside of its folder, starts a program, runs foreign code, or lets an escape through to the terminal. Each bug
is told once, with what makes it again; the exit code is then 1. `--seconds` of the processor are of all entry
points together, `--inputs` of each.
"""

import argparse
import contextlib
import io
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.bench import digests, suite
from tests.tasks.entries import ENTRIES, Refused, prepare

SECONDS = 10
"""That one input may take."""
WRITES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.chmod", "os.truncate"}
RUNS = {"os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "pickle.find_class", "ctypes.dlopen"}
OURS = ("tasks/", "zeroinit/")
ROOT = Path(__file__).parents[2]


class Hang(BaseException):
    """Not an `Exception`, which a reader may take for its own."""


class Watch:
    """Sees through an audit hook, which Python never takes out again, what reading an input does to the system."""

    def __init__(self) -> None:
        self.allowed: tuple[str, ...] | None = None
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.allowed is None:
            return
        if event == "open":
            path, mode, flags = arguments
            writes = set(mode or "") & set("wax+") or (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and isinstance(path, str | bytes | os.PathLike):
                self._written(event, path)
        elif event in WRITES and arguments[-1] in (-1, None):  # else below a folder that is open already
            for path in arguments[event == "os.symlink" : 2]:
                if isinstance(path, str | bytes | os.PathLike):
                    self._written(event, path)
        elif event in RUNS:
            self.seen.append(f"{event} {arguments!r:.200}")
        elif event in ("exec", "compile"):
            name = getattr(arguments[0], "co_filename", None) if event == "exec" else arguments[1]
            if isinstance(name, str) and self.allowed and name.startswith(self.allowed):
                self.seen.append(f"{event} {name}")

    def _written(self, event: str, path: Any) -> None:
        name = os.fsdecode(path)
        place = os.path.realpath(os.path.dirname(name) or ".")  # noqa: PTH120
        allowed = self.allowed or ()
        if not f"{place}/".startswith(allowed) and f"{name}/" not in allowed and place != "/dev":
            self.seen.append(f"{event} {name!r}")


@dataclass
class Tally:
    """What came of an entry point's inputs."""

    accepted: int = 0
    refused: int = 0
    seconds: float = 0.0
    bugs: dict[str, str] = field(default_factory=dict)

    @property
    def inputs(self) -> int:
        return self.accepted + self.refused + self.failed

    failed: int = 0


class Fuzzer:
    """Runs inputs one by one, each in a folder of its own that lies beside a file which nobody may touch."""

    def __init__(self, base: Path, watch: Watch, seed: int = 0) -> None:
        self.base, self.watch, self.seed = base.resolve(), watch, seed
        self.inside = self.base / "inside"
        self.sentinel = self.base / "sentinel"
        self.sentinel.write_text("untouched")
        self.cache = os.environ.get("ZEROINIT_CACHE")

    def prepare(self, name: str) -> None:
        """Make and import what is made and imported once."""
        _cache(self.cache)
        prepare(name)
        os.environ["ZEROINIT_CACHE"] = str(self.inside / "cache")
        self.one(name, -1, Tally())

    def one(self, name: str, number: int, tally: Tally) -> None:
        """One input; what goes wrong with it is kept."""
        draw = random.Random(f"{self.seed} {name} {number}")
        shutil.rmtree(self.inside, ignore_errors=True)
        self.inside.mkdir()
        told = io.StringIO()
        began = time.process_time()
        problem = None
        self.watch.seen.clear()
        self.watch.allowed = (f"{self.inside}/",)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of the processor, which others may keep busy
        signal.alarm(round(20 * SECONDS) or 1)
        try:
            with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
                ENTRIES[name](draw, self.inside)
            tally.accepted += 1
        except Refused as error:
            tally.refused += 1
            problem = None if str(error).strip() else f"{type(error).__name__} says nothing"
        except Hang:
            problem = f"it takes more than {SECONDS} seconds"
        except Exception as error:
            problem = told_of(error)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.alarm(0)
            self.watch.allowed = None
        tally.seconds += time.process_time() - began
        problem = problem or self._outside(told.getvalue())
        if problem:
            tally.failed += 1
            again = f"--only {name} --seed {self.seed} --number {number}"
            tally.bugs.setdefault(problem, again)

    def _outside(self, told: str) -> str | None:
        if self.watch.seen:
            return self.watch.seen[0]
        if sorted(path.name for path in self.base.iterdir()) != ["inside", "sentinel"]:
            return f"there is {sorted(path.name for path in self.base.iterdir())} beside its folder"
        if self.sentinel.read_text() != "untouched":
            return "the sentinel was touched"
        if odd := [line for line in told.split("\n") if not line.isprintable()]:
            return f"the terminal gets {odd[0][:100]!r}"
        return None


def told_of(error: BaseException) -> str:
    """The exception and the place in our code where it came up, the same for the same bug."""
    frames = [
        f"{path.relative_to(ROOT)}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if (path := Path(frame.filename)).is_relative_to(ROOT)
    ]
    own = [frame for frame in frames if frame.startswith(OURS)] or frames
    return f"{type(error).__name__} in {own[-1] if own else '?'}"


@contextlib.contextmanager
def fuzzer(seed: int = 0, watch: Watch | None = None) -> Iterator[Fuzzer]:
    """A fuzzer with its folder, and the alarm that ends what hangs."""

    def ring(*_: object) -> None:
        raise Hang

    before = {number: signal.signal(number, ring) for number in (signal.SIGALRM, signal.SIGPROF)}
    sync, cache = os.fsync, os.environ.get("ZEROINIT_CACHE")
    os.fsync = lambda _: None  # what is lost in a power cut is not what is looked for here
    with tempfile.TemporaryDirectory(prefix="zeroinit-fuzz-") as place:
        try:
            yield Fuzzer(Path(place), watch or Watch(), seed)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            os.fsync = sync
            _cache(cache)


def _cache(place: str | None) -> None:
    os.environ.pop("ZEROINIT_CACHE", None)
    if place is not None:
        os.environ["ZEROINIT_CACHE"] = place


def forget() -> None:
    """Let go of what is kept for every file that was ever read."""
    digests._file_digest.cache_clear()
    suite._parsed.cache_clear()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, help="of the processor, for all entry points together")
    parser.add_argument("--inputs", type=int, help="of each entry point")
    parser.add_argument("--only", choices=sorted(ENTRIES), metavar="NAME", help=", ".join(ENTRIES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--number", type=int, help="this input alone, with the whole traceback")
    given = parser.parse_args(arguments)
    names = [given.only] if given.only else list(ENTRIES)
    with fuzzer(given.seed) as one:
        if given.number is not None:
            return alone(one, names[0], given.number)
        tallies = {name: Tally() for name in names}
        for name, tally in tallies.items():
            one.prepare(name)
            number = 0
            ends = time.process_time() + (given.seconds or 60.0) / len(names)
            while number < given.inputs if given.inputs else time.process_time() < ends:
                one.one(name, number, tally)
                number += 1
                if number % 1000 == 0:
                    forget()
            print(line(name, tally), flush=True)
            for problem, again in tally.bugs.items():
                print(f"  BUG {problem}: {again}", flush=True)
    total = sum(tally.inputs for tally in tallies.values())
    print(f"{total} inputs in {sum(tally.seconds for tally in tallies.values()):.0f} s of the processor")
    return int(any(tally.bugs for tally in tallies.values()))


def line(name: str, tally: Tally) -> str:
    speed = tally.inputs / tally.seconds if tally.seconds else 0.0
    told = f"{tally.inputs:>8} inputs {tally.accepted:>8} accepted {tally.refused:>8} refused {speed:>8.0f}/s"
    return f"{name:<22} {told}"


def alone(one: Fuzzer, name: str, number: int) -> int:
    """One input, whose exception is shown whole, and whose folder stays to be looked at."""
    one.prepare(name)
    tally = Tally()
    real = ENTRIES[name]

    def shown(draw: random.Random, folder: Path) -> None:
        try:
            real(draw, folder)
        except BaseException:
            sys.__stderr__.write(traceback.format_exc())
            raise

    ENTRIES[name] = shown
    one.one(name, number, tally)
    print(line(name, tally), *tally.bugs)
    kept = Path(tempfile.mkdtemp(prefix="zeroinit-fuzz-input-"))
    shutil.copytree(one.inside, kept / "input", symlinks=True)
    print(f"the input: {kept / 'input'}")
    return int(bool(tally.bugs))


if __name__ == "__main__":
    raise SystemExit(main())
