"""Splits that do not move: who belongs where is a hash of a name, never of a seed or an order."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from tasks.bench.errors import InputError

Example = TypeVar("Example")


class Named(Protocol):
    """An example, whatever its task makes it."""

    @property
    def id(self) -> Any:
        """Its name in records."""
        ...


NamedExample = TypeVar("NamedExample", bound=Named)


def divide(
    examples: Sequence[Example], group: Callable[[Example], str], share: float
) -> tuple[list[Example], list[Example]]:
    """A share of the groups, at least one, and the rest; a group is never divided.

    A single group all goes to the rest, and so does everything where the share is 0.
    """
    groups = sorted({group(example) for example in examples}, key=_rank)
    count = max(1, round(share * len(groups))) if share and len(groups) > 1 else 0
    chosen = set(groups[: min(count, len(groups) - 1)])
    return (
        [example for example in examples if group(example) in chosen],
        [example for example in examples if group(example) not in chosen],
    )


def check_shares(**shares: float) -> None:
    """Refuse what is no share of a split's groups.

    Raises:
        InputError: one is below 0, or not below 1.
    """
    for name, share in shares.items():
        if not 0 <= share < 1:
            raise InputError(f"{name} is {share}: give a share from 0 up to 1")


def sample(examples: Sequence[NamedExample], size: int | None) -> list[NamedExample]:
    """At most so many examples, the same ones every time by their names, in their order; None: all."""
    if size is None or size >= len(examples):
        return list(examples)
    chosen = {example.id for example in sorted(examples, key=lambda example: _rank(str(example.id)))[:size]}
    return [example for example in examples if example.id in chosen]


def _rank(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
