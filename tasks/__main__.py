"""python -m tasks list|plan|run|report|score|speed: the suite from the command line."""

import importlib
import importlib.util
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from tasks.bench import commandline as flags
from tasks.bench import discover
from tasks.bench import task as tasks
from tasks.bench.config import TIERS, Run, parse_settings
from tasks.bench.errors import InputError
from tasks.bench.store import Store
from tasks.bench.suite import plan as plan_of
from tasks.bench.suite import read

app = flags.new_app("The zeroinit benchmark suite.")
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
SuiteName = Annotated[str, typer.Argument(metavar="SUITE", help="A file in tasks/suites, or a path to a .toml.")]


@dataclass(frozen=True)
class Planned:
    """A suite's runs and the store they belong to."""

    runs: list[Run]
    store: Store


@app.command("list")
def list_all() -> None:
    """Every task, backbone, method, tier and suite by its flag value."""
    from zeroinit import methods

    found = {
        "task": discover.names("task"),
        "backbone": discover.names("backbone"),
        "method": sorted([*methods.names(), "frozen"]),
        "tier": list(TIERS),
        "suite": discover.names("suite"),
    }
    for kind, names in found.items():
        print(f"{kind:<9} {' '.join(names)}")


@app.command()
def plan(
    suite: SuiteName,
    train: flags.Train = None,
    eval: flags.Eval = None,
    data: flags.Data = None,
    limit: flags.Limit = None,
    results: flags.Results = flags.LOCAL,
    device: flags.Device = "auto",
    skip_bad: flags.SkipBad = 0,
    set: flags.Set = None,
) -> None:
    """The cells of a suite and their state; nothing runs."""
    given = {
        "train": train,
        "eval": eval,
        "data": data,
        "limit": limit,
        "device": device,
        "skip_bad": skip_bad,
    }
    planned = _planned(suite, given, set, results)
    for run in planned.runs:
        print(f"{planned.store.state(run.cell):<8} {run.cell}")


@app.command()
def run(
    suite: SuiteName,
    train: flags.Train = None,
    eval: flags.Eval = None,
    data: flags.Data = None,
    limit: flags.Limit = None,
    results: flags.Results = flags.LOCAL,
    device: flags.Device = "auto",
    skip_bad: flags.SkipBad = 0,
    set: flags.Set = None,
    jobs: Annotated[int, typer.Option(min=1, help="Cells at a time, each in its own process.")] = 1,
) -> int:
    """Run the cells of a suite that are missing, then print its tables; exit code 1 if a cell failed."""
    from tasks.bench.executors.local import run_all
    from tasks.bench.report import tables

    given = {
        "train": train,
        "eval": eval,
        "data": data,
        "limit": limit,
        "device": device,
        "skip_bad": skip_bad,
    }
    planned = _planned(suite, given, set, results)
    missing = [run for run in planned.runs if not planned.store.has(run.cell)]
    print(f"{suite}: {len(planned.runs)} cells, {len(missing)} to run, {jobs} at a time", file=sys.stderr)
    failures = run_all(missing, planned.store, jobs)
    planned.store.export()
    print(tables(planned.store, [run.cell for run in planned.runs]), end="")
    if failures:
        print(f"{len(failures)} of {len(missing)} cells failed: {', '.join(failures)}", file=sys.stderr)
    return int(bool(failures))


@app.command()
def report(
    suite: SuiteName,
    results: flags.Results = flags.LOCAL,
    allow_mixed: Annotated[bool, typer.Option(help="Put two protocols into one column, each number marked.")] = False,
    publish: Annotated[bool, typer.Option(help="Write the snapshot results/SUITE, which is committed.")] = False,
    embed_inputs: Annotated[bool, typer.Option(help="Show the pictures of --data on the page.")] = False,
    data: flags.Data = None,
) -> None:
    """Derive the tables and the page of a suite from its cells; nothing runs."""
    from tasks.bench import report as reports

    if embed_inputs != (data is not None):
        raise InputError("--embed-inputs and --data go together: the folder holds the pictures that are to be shown")
    if embed_inputs and publish:
        raise InputError("--publish takes no --embed-inputs: what is committed never holds inputs")
    if publish:
        from tasks.bench.report.publish import publish as snapshot

        print(snapshot(read(suite), Store(results), flags.LOCAL.parent, allow_mixed=allow_mixed), end="")
    else:
        print(reports.report(read(suite), Store(results), allow_mixed=allow_mixed, folder=data), end="")


@app.command(context_settings=PASS_ON)
def score(
    context: typer.Context,
    task: Annotated[str, typer.Argument(metavar="TASK")],
    predictions: Annotated[Path, typer.Option(help="What was answered.")],
    references: Annotated[Path, typer.Option(help="The file that defines the set.")],
) -> None:
    """The official metric alone: one JSON object on the last line of standard output."""
    import inspect

    bench = tasks.get(task)
    known = list(inspect.signature(bench.score).parameters)[2:]
    print(json.dumps(bench.score(predictions, references, **_options(context.args, known))))


@app.command(context_settings={**PASS_ON, "help_option_names": []})
def speed(context: typer.Context) -> int:
    """Step, forward and generation against the floor, PEFT and LoRA, as ratios."""
    if importlib.util.find_spec("tasks.bench.speed") is None:
        raise InputError("this version has no tasks/bench/speed.py: update it")
    return flags.guarded(importlib.import_module("tasks.bench.speed").app, context.args)


def _planned(suite: str, given: dict[str, Any], settings: list[str] | None, results: Path) -> Planned:
    return Planned(plan_of(read(suite), given, parse_settings(settings or [])), Store(results))


def _options(arguments: list[str], known: list[str]) -> dict[str, str]:
    """`--some-name VALUE` pairs, for a task that takes them."""
    options: dict[str, str] = {}
    for flag, value in zip(arguments[::2], [*arguments[1::2], ""], strict=False):
        name = flag.removeprefix("--").replace("-", "_")
        if name not in known or not flag.startswith("--") or not value:
            there = ", ".join(f"--{option.replace('_', '-')} VALUE" for option in known) or "none"
            raise InputError(f"{flag} is no option of this task's score: the known ones are {there}")
        options[name] = value
    return options


if __name__ == "__main__":
    raise SystemExit(flags.guarded(app))
