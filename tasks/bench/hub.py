"""The hub where it can be reached; where not, its libraries look into their caches at once, without retrying."""

import contextlib
import functools
from collections.abc import Iterator

from tasks.bench.errors import InputError


@functools.cache
def prepare() -> bool:
    """Find out once whether the hub answers, and set its libraries accordingly."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:  # whatever keeps it away, from no network to a broken proxy
        import datasets.config as for_datasets

        constants.HF_HUB_OFFLINE = True
        for_datasets.HF_HUB_OFFLINE = True
        return False
    return True


@contextlib.contextmanager
def asked(wanting: str, remedy: str) -> Iterator[None]:
    """Around what looks into the local cache and then on the hub; `wanting` is how the refusal begins.

    Raises:
        InputError: neither has it.
    """
    prepare()
    try:
        yield
    except (OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]  # some say nothing, as a time-out
        raise InputError(f"{wanting} to be had from the hub ({reason}): {remedy}") from error
