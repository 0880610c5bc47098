"""A report: what the cells of a suite say together. Pure: it reads a store, runs nothing, and gives equal bytes again.

<store>/results.csv         one line a cell, split and metric
        <suite>_wide.csv    one line a method and setting
        <suite>.md .tex     the tables, ours and published ones
        <suite>.html        all of it on one page, with drawings and what stands behind each number
        report.html         the same, of the suite reported last
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from tasks.bench import durable
from tasks.bench.report import belonging, latex, markdown, published, wide
from tasks.bench.report.found import read
from tasks.bench.report.gathered import Gathered, gather
from tasks.bench.store import Store
from tasks.bench.suite import Suite


def report(
    suite: Suite, store: Store, *, allow_mixed: bool = False, pictures: bool = True, folder: Path | None = None
) -> str:
    """Write the files of a suite's report into its store, and return the tables for a terminal.

    Args:
        suite: whose cells are reported.
        store: where they are, and where the files go.
        allow_mixed: put two protocols into one column, each number marked.
        pictures: show those of the generated world.
        folder: show those of real data that are in it, too.

    Raises:
        InputError: a table would mix protocols, which was not allowed, or a cell cannot be read.
    """
    from tasks.bench.report import assembled, page  # they draw, and what they draw with takes a second to import

    own = belonging.of(suite, read(store))
    found = gather(own.cells, store, allow_mixed=allow_mixed)
    counts = _counts(own)
    numbers = published.read()
    beside = [numbers.beside(table) for table in found.tables] + [numbers.over(each.tables) for each in found.summaries]
    others = [sheet for sheet in beside if sheet is not None]
    told = page.html(assembled.page(suite.name, found, counts, numbers, pictures=pictures, folder=folder))
    text = terminal(found, counts)
    files = {
        f"{suite.name}_wide.csv": wide.text(found.tables),
        f"{suite.name}.md": f"{text}\n{markdown.document(others, width=None)}\n" if others else text,
        f"{suite.name}.tex": latex.document([*found.sheets, *others]),
        f"{suite.name}.html": told,
        "report.html": told,
    }
    store.export()
    with durable.told(store.root):
        for name, content in files.items():
            durable.write(store.root / name, content.encode())
    return text


def terminal(found: Gathered, counts: Sequence[str] = ()) -> str:
    """The tables as they are printed, and what has no numbers."""
    parts = [markdown.document(found.sheets) or "There is no finished cell yet."]
    unmeasured = [
        f"- {markdown.escaped(cell.name)}: {markdown.escaped(str(cell.facts.get('error', '')))}"
        for cell in found.unmeasured
    ]
    parts += ["\n".join(["Without numbers, not in the tables:", *unmeasured])] if unmeasured else []
    parts += [" ".join(counts)] if counts else []
    return "\n\n".join(parts) + "\n"


def tables(store: Store, names: Iterable[str]) -> str:
    """The tables of some cells alone.

    Raises:
        InputError: a table would mix protocols.
    """
    return terminal(gather(read(store, names), store))


def _counts(own: belonging.Belonging) -> list[str]:
    """How much of the suite is there."""
    states = [cell.state for cell in own.cells]
    told = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states))) or "none"
    counts = [f"{len(states)} cells: {told}."]
    if own.missing:
        counts.append(f"{own.missing} of the suite's cells are missing.")
    if own.others:
        counts.append(f"{own.others} more on its axes are not as it plans them and are left out.")
    return counts
