"""All that is known of some cells, worked out once for every format of a report."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tasks.bench.report import compared, details, mixing, overall
from tasks.bench.report.compare import Examples, Verdict, examples, judge
from tasks.bench.report.found import Found
from tasks.bench.report.overall import Ranking, Summary
from tasks.bench.report.sheet import Sheet
from tasks.bench.report.tables import Line, Table, build
from tasks.bench.store import Store


@dataclass(frozen=True)
class Gathered:
    """Tables, and what follows from them.

    Attributes:
        store: where the cells are.
        tables: of those that were measured.
        known: each table's numbers example by example.
        verdicts: who is best in each table.
        unmeasured: cells without numbers.
    """

    store: Store
    tables: Sequence[Table]
    known: Mapping[Table, Mapping[str, Examples]]
    verdicts: Mapping[Table, Mapping[str, Verdict]]
    unmeasured: Sequence[Found]

    @functools.cached_property
    def links(self) -> Mapping[Line, str]:
        """Where the page tells more about a line."""
        return details.links(self.tables)

    @functools.cached_property
    def ranking(self) -> Ranking | None:
        """Of methods over several tables."""
        return overall.rank(self.tables)

    @functools.cached_property
    def compared(self) -> Mapping[Table, Sheet]:
        """Each table as it is shown."""
        return {table: compared.sheet(table, self.verdicts[table], self.links) for table in self.tables}

    @functools.cached_property
    def ranked(self) -> Sheet | None:
        """The ranking as it is shown."""
        return overall.sheet(self.ranking, self.known) if self.ranking else None

    @functools.cached_property
    def summaries(self) -> Sequence[Summary]:
        """Of tasks with many data sets."""
        return overall.summaries(self.tables)

    @property
    def sheets(self) -> list[Sheet]:
        """All tables of ours."""
        over = [*([self.ranked] if self.ranked else []), *(summary.sheet for summary in self.summaries)]
        return [*self.compared.values(), *over]


def gather(cells: Iterable[Found], store: Store, *, allow_mixed: bool = False) -> Gathered:
    """Work it out.

    Raises:
        InputError: a table would mix protocols, which was not allowed.
    """
    found = list(cells)
    tables = build(found)
    if not allow_mixed:
        mixing.refuse(tables)
    known = {table: examples(table, store) for table in tables}
    verdicts = {table: judge(table, known[table]) for table in tables}
    return Gathered(store, tables, known, verdicts, [cell for cell in found if not cell.measured])
