"""The hub where it can be reached; where not, its libraries look into their caches at once, without retrying."""

import functools
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from tasks.bench.errors import InputError
from tasks.bench.plain import say

T = TypeVar("T")
PAUSES = (2.0, 8.0)
"""Seconds before each time that a hub is asked again which did not answer in time."""
LATE = {"TimeoutError", "TimeoutException"}
PASSING = {*LATE, "ConnectionError", "TransportError"}
"""What errors are called that may be gone in a moment: which library the hub's client speaks by is its own affair."""


@functools.cache
def prepare() -> bool:
    """Find out once whether the hub answers, and set its libraries accordingly."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        return False
    for timeout in (5, 10):
        try:
            get_session().head(constants.ENDPOINT, timeout=timeout)
        except Exception as error:  # whatever keeps it away, from no network to a broken proxy
            if not _is_any(error, LATE):
                break
            say(f"the hub did not answer in {timeout} s")
        else:
            return True
    import datasets.config as for_datasets

    constants.HF_HUB_OFFLINE = True
    for_datasets.HF_HUB_OFFLINE = True
    return False


def asked(load: Callable[[], T], wanting: str, remedy: str) -> T:
    """What a library loads from its cache or from the hub, which is asked again where it fails in passing.

    Args:
        load: the library's call.
        wanting: how a refusal begins.
        remedy: how it ends.

    Raises:
        InputError: neither has it.
    """
    reachable, pauses = prepare(), iter(PAUSES)
    while True:
        try:
            return load()
        except Exception as error:  # what the client raises is not told
            reason = (str(error).splitlines() or [type(error).__name__])[0]  # some say nothing, as a time-out
            pause = next(pauses, None) if reachable and _passes(error) else None
            if pause is None:
                raise InputError(f"{wanting} to be had from the hub ({reason}): {remedy}") from error
            say(f"the hub: {reason}; asking again in {pause:.0f} s")
            time.sleep(pause)


def _passes(error: BaseException) -> bool:
    """Whether it may be otherwise in a moment: no answer in time, a lost connection, a server in trouble."""
    for each in _causes(error):
        if status := getattr(getattr(each, "response", None), "status_code", None):
            return status == 429 or status >= 500
        if _is_any(each, PASSING):
            return True
    return False


def _is_any(error: BaseException, names: set[str]) -> bool:
    return not names.isdisjoint(kind.__name__ for kind in type(error).__mro__)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it followed from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
