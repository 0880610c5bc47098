"""python -m tasks list|plan|run|report|score|merge|verify|doctor|speed: the suite from the command line."""

import functools
import gc
import importlib
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from tasks.bench import commandline as flags
from tasks.bench import discover, processes
from tasks.bench import task as tasks
from tasks.bench.config import TIERS, UNTRAINED
from tasks.bench.errors import InputError
from tasks.bench.planned import Planned, Rerun
from tasks.bench.settings import parse_settings
from tasks.bench.store import Store
from tasks.bench.suite import plan as plan_of
from tasks.bench.suite import read

app = flags.new_app("The zeroinit benchmark suite.")
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
SuiteName = Annotated[str, typer.Argument(metavar="SUITE", help="A file in tasks/suites, or a path to a .toml.")]


SHARED = {
    "train": (flags.Train, None),
    "eval": (flags.Eval, None),
    "data": (flags.Data, None),
    "limit": (flags.Limit, None),
    "device": (flags.Device, "auto"),
    "skip_bad": (flags.SkipBad, 0),
}
"""The flags that hold for every cell of a suite, and what they are where nothing is given."""


@app.command("list")
def list_all() -> None:
    """Every task, backbone, method, tier and suite by its flag value."""
    from zeroinit import methods

    found = {
        "task": discover.names("task"),
        "backbone": discover.names("backbone"),
        "method": sorted([*methods.names(), *UNTRAINED]),
        "tier": list(TIERS),
        "suite": discover.names("suite"),
    }
    for kind, names in found.items():
        print(f"{kind:<9} {' '.join(names)}")


def of_a_suite(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command about a planned suite: its name, its store and the flags that all its cells share stand for that."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    given = [
        inspect.Parameter(name, keyword, default=default, annotation=flag) for name, (flag, default) in SHARED.items()
    ]
    named = [
        inspect.Parameter("suite", keyword, annotation=SuiteName),
        inspect.Parameter("results", keyword, default=flags.LOCAL, annotation=flags.Results),
        inspect.Parameter("set", keyword, default=None, annotation=flags.Set),
        inspect.Parameter("only", keyword, default=None, annotation=flags.Only),
    ]
    own = list(inspect.signature(command).parameters.values())[1:]

    @functools.wraps(command)
    def whole(suite: str, results: Path, set: list[str] | None, only: list[str] | None, **rest: Any) -> Any:
        given = {name: rest.pop(name) for name in SHARED}
        runs = plan_of(read(suite), given, parse_settings(set or []), parse_settings(only or [], "--only"))
        return command(Planned(Path(suite).stem, runs, Store(results)), **rest)

    own = [parameter.replace(kind=keyword) for parameter in own]
    whole.__signature__ = inspect.Signature([named[0], *given, *named[1:], *own])  # type: ignore[attr-defined]
    whole.__annotations__ = {}  # which typer reads too
    return whole


@app.command()
@of_a_suite
def plan(planned: Planned) -> None:
    """The cells of a suite, their state and the time they will take; nothing runs."""
    print(planned.overview())


@app.command()
@of_a_suite
def run(
    planned: Planned,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Cells at a time; by default 1, or what a cluster holds.")
    ] = None,
    executor: Annotated[str, typer.Option(help="Where they run: a file in tasks/bench/executors.")] = "local",
    rerun: Annotated[Rerun, typer.Option(help="Run failed cells again, stale ones too, or none of them.")] = "failed",
) -> int:
    """Run the cells of a suite that are missing, then print its tables; exit code 1 if a cell failed."""
    processes.alone("python -m tasks run")
    return planned.run(discover.load("executor", executor).run_all, jobs, rerun)


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
    gc.disable()  # cells are kept to the end; of thousands, looking again and again for what to free takes a fifth
    if publish:
        from tasks.bench.report.publish import publish as snapshot

        print(snapshot(read(suite), Store(results), flags.LOCAL.parent, allow_mixed=allow_mixed), end="")
    else:
        print(reports.report(read(suite), Store(results), allow_mixed=allow_mixed, folder=data), end="")


@app.command("merge")
def merge_stores(
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="The store that takes them; made if it is absent.")],
    stores: Annotated[list[Path], typer.Argument(metavar="STORE...", help="Stores to take cells from.")],
) -> None:
    """Join the stores of several machines; refuse if two of them disagree about a cell."""
    from tasks.bench.merge import merge

    fresh = merge(Store(target), [Store(path) for path in stores])
    print(f"{target}: {len(Store(target).names())} cells, {len(fresh)} of them new")


@app.command()
def verify(
    stores: Annotated[list[Path], typer.Argument(metavar="STORE...", help="Folders that --results named.")],
) -> int:
    """Recompute every number from its records, and tell each that does not follow; exit code 1 if there is one."""
    from tasks.bench.verify import verified

    return int(not all([verified(Store(path)) for path in stores]))


@app.command(context_settings=PASS_ON)
def score(
    context: typer.Context,
    task: Annotated[str, typer.Argument(metavar="TASK")],
    predictions: Annotated[Path, typer.Option(help="What was answered.")],
    references: Annotated[Path, typer.Option(help="The file that defines the set.")],
) -> None:
    """The official metric alone: one JSON object on the last line of standard output."""
    bench = tasks.get(task)
    known = list(inspect.signature(bench.score).parameters)[2:]
    print(json.dumps(bench.score(predictions, references, **_options(context.args, known))))


@app.command()
def doctor(
    results: flags.Results = flags.LOCAL,
    slow: Annotated[bool, typer.Option("--slow", help="Also what takes half a minute.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on the last line.")] = False,
) -> int:
    """Test every metric against official numbers, and all that is installed; exit code 1 if something is wrong."""
    from tasks.bench.doctor import Request, report

    return report(Request(results, slow), as_json=as_json)


@app.command(context_settings={**PASS_ON, "help_option_names": []})
def speed(context: typer.Context) -> int:
    """Step, forward and generation against the floor, PEFT and LoRA, as ratios."""
    return flags.guarded(importlib.import_module("tasks.bench.speed").app, context.args)


def _options(arguments: list[str], known: list[str]) -> dict[str, str]:
    """`--some-name VALUE` pairs, for a task that takes them."""
    options: dict[str, str] = {}
    arguments = [part for one in arguments for part in (one.split("=", 1) if one.startswith("--") else [one])]
    for flag, value in zip(arguments[::2], [*arguments[1::2], ""], strict=False):
        name = flag.removeprefix("--").replace("-", "_")
        if name not in known or not flag.startswith("--") or not value:
            there = ", ".join(f"--{option.replace('_', '-')} VALUE" for option in known) or "none"
            raise InputError(f"{flag} is no option of this task's score: the known ones are {there}")
        options[name] = value
    return options


if __name__ == "__main__":
    raise SystemExit(flags.guarded(app))
