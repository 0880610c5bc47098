"""Stores of several machines in one: a cell that two of them hold must have the same numbers in both.

Everything is compared before anything is copied, and sources are only read.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.bench import folder
from tasks.bench.config import name_of
from tasks.bench.errors import InputError
from tasks.bench.rows import alike, csv_of
from tasks.bench.store import Store

NUMBERS = ("n", "n_expected", "extract_fail", "empty", "truncated")
"""What two runs of one cell agree on beside their scores; times, memory and machines may differ."""


def merge(target: Store, sources: Sequence[Store]) -> list[str]:
    """Bring the cells of the sources into the target; the names of those that it did not have.

    A cell without numbers gives way to one that has some.

    Raises:
        InputError: a source is none, a cell is broken, two stores disagree about one, or the target cannot be written.
    """
    for source in sources:
        if not source.cells.is_dir():
            raise InputError(f"{source.root} holds no cells: give the folder that --results named")
    target.probe()
    target.rows()  # a table that cannot be derived is no place to add cells to
    chosen: dict[str, Store] = {name: target for name in target.names()}
    for source in sources:
        for name in source.names():
            _check(source, name)
            chosen[name] = _better(chosen[name], source, name) if name in chosen else source
    fresh = [name for name, source in chosen.items() if source is not target]
    for name in fresh:
        _copy(chosen[name], target, name)
    target.export()
    return fresh


def _check(source: Store, name: str) -> None:
    """Refuse a cell that would be none in the target.

    Raises:
        InputError: it holds links, or is not what its name says, or no table can hold what it says.
    """
    cell = source.cells / name
    if links := [path for path in (cell, *cell.rglob("*")) if path.is_symlink()]:
        raise InputError(f"{links[0]} is a link, which may lead anywhere: put what it leads to in its place")
    rows = source.rows_of(name)
    try:
        csv_of(rows).encode()
        own = name_of(source.config(name))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{cell} is no cell ({error!r}): remove it, and the cell runs again") from None
    if own != name:
        raise InputError(f"{cell} holds the configuration of {own}: remove it, and the cell runs again")


def _better(one: Store, other: Store, name: str) -> Store:
    """Which of two stores to take a cell from: the first, unless only the second has numbers."""
    if not other.has(name):
        return one
    if not one.has(name):
        return other
    if difference := _difference(one.result(name), other.result(name)):
        raise InputError(
            f"{one.cells / name} and {other.cells / name} differ in {difference}: "
            "one configuration has one result, so find out which is right and remove the other"
        )
    return one


def _difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The first number in which two results differ; empty where there is none."""
    numbers, others = _numbers(one), _numbers(other)
    for key in sorted({*numbers, *others}):
        a, b = numbers.get(key), others.get(key)
        if not alike(a, b):
            return f"{key} ({a} and {b})"
    return ""


def _numbers(result: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for split, part in result["splits"].items():
        found |= {f"{split} {key}": part.get(key) for key in NUMBERS}
        found |= {f"{split} {metric}": value for metric, (value, _) in part["scores"].items()}
    return found


def _copy(source: Store, target: Store, name: str) -> None:
    with target.lock(name, wait=True), target.unfinished() as whole:
        folder.copy(source.cells / name, whole)
        target.settle(whole, name)
