"""The flags that every task command shares, and how a refusal reaches the user: one sentence, exit code 2."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from tasks.bench import processes
from tasks.bench import task as tasks
from tasks.bench.config import UNTRAINED, Choice, Run
from tasks.bench.errors import CellError, InputError
from tasks.bench.plain import say
from tasks.bench.settings import parse_settings
from tasks.bench.store import Store

INTERRUPTED = 130
"""What typer returns when a command is interrupted, as shells do for Ctrl-C."""
LOCAL = Path("results/local")

Tier = Annotated[str, typer.Option(help="mini, pocket or paper: the same code at three sizes.")]
Backbone = Annotated[str, typer.Option(help="A file in tasks/backbones.")]
Checkpoint = Annotated[str | None, typer.Option(help="A folder or hub name, instead of the tier's.")]
Method = Annotated[str, typer.Option(help=f"A file in zeroinit/methods, or {', '.join(UNTRAINED)}.")]
Seed = Annotated[int, typer.Option(help="Draws the head, the method and the order of training.")]
Limit = Annotated[int | None, typer.Option(help="At most so many examples of each split.")]
Train = Annotated[Path | None, typer.Option(help="Training file, divided into fit and tune.")]
Eval = Annotated[Path | None, typer.Option(help="Evaluation file, reported once.")]
Data = Annotated[
    Path | None, typer.Option(help="Folder that holds the official files, or one of that kind for each task.")
]
Dataset = Annotated[str | None, typer.Option(help="One of the task's data sets; squad: v1.1 or v2.0.")]
Adapter = Annotated[Path | None, typer.Option(help="A saved adapter: evaluate it, train nothing.")]
Results = Annotated[Path, typer.Option(help="The store that the cell goes into.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
SkipBad = Annotated[int, typer.Option(min=0, help="Leave up to so many bad records of a file out, and list them.")]
Only = Annotated[
    list[str] | None, typer.Option("--only", metavar="KEY=VALUE", help="The cells of this task, dataset, method, ...")
]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any other field.")]


def new_app(about: str) -> typer.Typer:
    """A command line without ornaments: plain help, plain errors."""
    return typer.Typer(help=about, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def guarded(app: Callable[..., Any], arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code is 2 for bad input, 1 for a cell that failed, 130 for one that was stopped."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with processes.agreed():
            code = int(app(args=arguments, standalone_mode=False) or 0)
            if code == INTERRUPTED:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        say("stopped; finished cells are kept, and the same command goes on from there")
        return INTERRUPTED
    except typer.TyperException as error:
        code = _refuse(error.format_message(), 2)
    except InputError as error:
        code = _refuse(str(error), 2)
    except CellError as error:
        code = _refuse(str(error), 1)
    processes.leave()
    return code


def _refuse(sentence: str, code: int) -> int:
    say(f"error: {' '.join(sentence.split())}")
    return code


def main(task: str, arguments: Sequence[str] | None = None) -> int:
    """`python -m tasks.<task>`: one cell, on one process or on several that a launcher started."""
    processes.join()
    app = new_app(f"Run one cell of {task}: train one method with one seed, and score it.")
    default = tasks.get(task).backbone

    @app.command()
    def cell(
        tier: Tier = "mini",
        backbone: Backbone = default,
        checkpoint: Checkpoint = None,
        method: Method = "zero_init",
        seed: Seed = 0,
        limit: Limit = None,
        train: Train = None,
        eval: Eval = None,
        data: Data = None,
        dataset: Dataset = None,
        adapter: Adapter = None,
        results: Results = LOCAL,
        device: Device = "auto",
        skip_bad: SkipBad = 0,
        set: Set = None,
    ) -> None:
        choice = Choice(
            task,
            backbone,
            method,
            tier,
            dataset,
            seed,
            checkpoint,
            train,
            eval,
            data,
            adapter,
            limit,
            device,
            skip_bad,
        )
        run_single(choice, parse_settings(set or []), Store(results))

    return guarded(app, arguments)


def run_single(choice: Choice, settings: dict[str, Any], store: Store) -> None:
    """Run a cell unless it is there, and print its table."""
    from tasks.bench.parallel import check
    from tasks.bench.report import tables
    from tasks.bench.suite import single

    config = single(choice, settings)
    check(config)
    processes.told(store.probe)
    with _turn(store, config.cell):
        if processes.told(lambda: store.has(config.cell)):
            say(f"{config.cell} is there already{_age(store, config.cell)}")
        else:
            _compute(config, store)
    processes.told(store.export)
    if not processes.first():
        return
    for note in store.result(config.cell)["notes"]:
        say(f"note: {note}")
    print(tables(store, [config.cell]), end="")
    print(f"\n{store.cells / config.cell}")


@contextlib.contextmanager
def _turn(store: Store, cell: str) -> Iterator[None]:
    """While no other run computes this cell; of several processes the first waits for it, the others for the first."""
    if not processes.first():
        yield
        return
    with store.lock(cell) as ours:
        if not ours:
            say(f"another process computes {cell}: waiting for it")
    with store.lock(cell, wait=True):
        yield


def _age(store: Store, cell: str) -> str:
    changed = store.outdated(cell)
    return f", of other code than today's ({', '.join(changed)}): remove its folder to run it again" if changed else ""


def _compute(config: Run, store: Store) -> None:
    from tasks.bench.cell import cancelled, failed
    from tasks.bench.run import run

    began = time.monotonic()
    try:
        run(config, store)
    except CellError as error:
        failure = failed(config, error)
        processes.told(lambda: store.write(failure))
        processes.told(store.export)
        raise
    except KeyboardInterrupt:
        if processes.first():  # the others are stopped as well, each by itself
            store.write(cancelled(config, time.monotonic() - began))
        raise
