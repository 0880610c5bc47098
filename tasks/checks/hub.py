"""Whether the hub of models and data sets answers; everything works without it on what is at hand."""

from collections.abc import Iterator

from tasks.bench import hub
from tasks.bench.doctor import Finding, Request

OFFLINE = (
    "not reached, so files, the cache and pinned wheels are all there is: for more, a network and HF_HUB_OFFLINE=0"
)


def findings(_: Request) -> Iterator[Finding]:
    """The hub."""
    if hub.prepare():
        yield Finding("ok", "hub", "it answers")
    else:
        yield Finding("absent", "hub", OFFLINE)
