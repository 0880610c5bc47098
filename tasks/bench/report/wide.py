"""Everything in one wide CSV: a line a method and setting, columns for each metric's mean, deviation and seeds."""

import csv
import io
from collections.abc import Sequence

from tasks.bench.plain import inert
from tasks.bench.report.tables import Line, Table


def text(tables: Sequence[Table]) -> str:
    """The file; a place is empty where a method has no number there."""
    lines: dict[str, dict[str, object]] = {}
    for table in tables:
        for line in table.lines:
            lines.setdefault(_name(table, line), {}).update(_values(_prefix(table, tables), line))
    columns = list(dict.fromkeys(column for values in lines.values() for column in values))
    rows = [[name, *(values.get(column, "") for column in columns)] for name, values in sorted(lines.items())]
    target = io.StringIO()
    csv.writer(target, lineterminator="\n").writerows(map(inert, row) for row in [["method", *columns], *rows])
    return target.getvalue()


def _name(table: Table, line: Line) -> str:
    """The line's label; with its protocol, where its table has more than one."""
    return line.label if len(table.fingerprints) == 1 else f"{line.label} [{line.fingerprint}]"


def _prefix(table: Table, tables: Sequence[Table]) -> str:
    """Task and data set, and what else tells this table from others of the same."""
    alike = [other.shared for other in tables if other.name == table.name]
    more = [value for key, value in table.shared.items() if any(shared[key] != value for shared in alike) and value]
    return f"{table.shared['task']}/{table.shared['dataset']}" + (f"@{','.join(more)}" if more else "")


def _values(prefix: str, line: Line) -> dict[str, object]:
    """Every metric of the report split."""
    metrics = dict.fromkeys(metric for cell in line.cells for metric in cell.splits["report"]["scores"])
    found: dict[str, object] = {}
    for metric in metrics:
        spread = line.spread(metric)
        if spread:
            name = f"{prefix}/{metric}"
            found |= {
                name: spread.mean,
                f"{name} sd": "" if spread.sd is None else spread.sd,
                f"{name} seeds": spread.n,
            }
    return found | {f"{prefix}/marks": "; ".join(line.marks)}
