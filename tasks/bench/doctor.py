"""What `python -m tasks doctor` looks at, and what it says: one line a finding, so that a number can be trusted here.

Each file in `tasks/checks` holds `findings(request)`: a file's name is its registration.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from tasks.bench import discover


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes:
        state: `ok`; `absent`, an optional part that is not there; or `wrong`.
        name: what it is.
        says: what there is; of what is absent how to get it, of what is wrong what to do.
    """

    state: Literal["ok", "absent", "wrong"]
    name: str
    says: str


@dataclass(frozen=True)
class Request:
    """What is asked of the checks.

    Attributes:
        results: the store that cells would go into.
        slow: whether to try what takes half a minute, too.
    """

    results: Path
    slow: bool = False


def examine(request: Request) -> Iterator[Finding]:
    """Everything, each finding as soon as it is made."""
    for name in discover.names("check"):
        try:
            yield from discover.load("check", name).findings(request)
        except Exception as error:  # what cannot even be looked at is wrong, and stops nothing else
            yield Finding("wrong", name, f"{type(error).__name__}: {error}")


def report(request: Request, *, as_json: bool = False) -> int:
    """Print every finding, and with JSON all of them once more on the last line; exit code 1 if anything is wrong."""
    found = []
    for finding in examine(request):
        found.append(finding)
        print(f"{finding.state:<6} {finding.name}: {' '.join(finding.says.split())}", flush=True)
    right = all(finding.state != "wrong" for finding in found)
    if as_json:
        print(json.dumps({"right": right, "findings": [finding._asdict() for finding in found]}))
    return int(not right)
