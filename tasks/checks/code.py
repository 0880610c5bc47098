"""Rows say which commit made them, and whether files differ from it."""

from collections.abc import Iterator

from tasks.bench import provenance
from tasks.bench.doctor import Finding, Request


def findings(_: Request) -> Iterator[Finding]:
    """The commit."""
    commit, dirty = provenance.commit()
    if not commit:
        how = "this is no git clone, or git is missing, so rows name no commit: run from a clone"
        yield Finding("absent", "commit", how)
    else:
        yield Finding("ok", "commit", f"{commit[:12]}{', with changed files' if dirty else ''}")
