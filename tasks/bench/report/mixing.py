"""Two protocols never stand in one column, unless it is asked for by name; then every such number is marked."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from tasks.bench.errors import InputError
from tasks.bench.report.found import Found
from tasks.bench.report.tables import Table


def refuse(tables: Iterable[Table]) -> None:
    """Stop at the first table that would mix.

    Raises:
        InputError: it names the protocols, a cell of each, and what differs.
    """
    for table in tables:
        if len(table.fingerprints) > 1:
            cells = [f"{name} ({_first(table, name)})" for name in table.fingerprints]
            raise InputError(
                f"{table.name} on {table.shared['backbone']} has cells of {len(cells)} protocols, "
                f"{' and '.join(cells)}, which differ in {differences(table)}: a table does not mix them; remove the "
                "cells of one, report them as two suites, or mark them with --allow-mixed"
            )


def _first(table: Table, fingerprint: str) -> str:
    return min(cell.name for cell in table.cells if cell.fingerprint == fingerprint)


def differences(table: Table) -> str:
    """What is not the same in all cells of a table, with the values."""
    parts = [ingredients(cell) for cell in table.cells]
    values = {
        key: {json.dumps(each.get(key), sort_keys=True, ensure_ascii=False) for each in parts}
        for key in sorted(set().union(*parts))
    }
    told = [f"{key} ({', '.join(sorted(found))})" for key, found in values.items() if len(found) > 1]
    return ", ".join(told) or "what looks at the pictures"


def ingredients(cell: Found) -> Mapping[str, Any]:
    """What a fingerprint is made of, as far as the cell says it."""
    config = cell.config
    parts = {key: config[key] for key in ("limit", "skip_bad")}
    parts |= {f"sources.{role}": file for role, file in config["sources"].items()}
    parts |= {f"versions.{name}": version for name, version in config["versions"].items()}
    parts |= {f"task.{name}": value for name, value in config["settings"]["task"].items()}
    return parts | {"weights": str(cell.facts["weights_sha256"])[:12], "checkpoint": cell.facts["checkpoint"]}
