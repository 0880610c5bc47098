"""IFEval's rules: does a response do what can be verified of its instructions, to the letter and generously?

Zhou et al. 2023, https://arxiv.org/abs/2311.07911. The 25 checkers are the authors' own, from the package
`if-verifiable`; what surrounds them here follows their `evaluation_lib.py`, so that

- a kwarg of 0 counts, and only an absent one is drawn;
- what a checker draws, and langdetect's sampling, follow from a fixed seed;
- their sentence model is there without a download.

Strict: the response itself passes. Loose: one of eight readings does, with or without its first line, its last line and
its asterisks. A response without text passes nothing.
"""

import functools
import importlib.util
import logging
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tasks.bench.documents import Entry
from tasks.bench.errors import AbsentError, InputError

INSTALL = "IFEval's checkers are an extra: run `pip install -e '.[ifeval]'`"


PROBE = "A title, and *some* words.\n\nA second paragraph."
"""A response that every checker must be able to judge."""
_REPEATED_GROUP = re.compile(r"\)[*+{]")
"""Keywords are patterns to the authors' code; without this a search takes no exponential time."""


@dataclass(frozen=True)
class Check:
    """One verifiable instruction: its type, and what its checker is to know."""

    kind: str
    kwargs: Mapping[str, Any]

    @classmethod
    def all_of(cls, entry: Entry) -> "tuple[Check, ...]":
        """The checks of a record of IFEval's file.

        Raises:
            InputError: a type is not known, or its kwargs do not fit it.
        """
        kinds, given = entry.texts("instruction_id_list"), entry.entries("kwargs")
        if not kinds or len(kinds) != len(given):
            raise InputError(
                f"{entry.place}: {len(kinds)} instructions have {len(given)} kwargs; give one object for each, and at "
                "least one"
            )
        checks = []
        for kind, each in zip(kinds, given, strict=True):
            if kind not in checkers():
                raise InputError(f"{entry.place}: there is no instruction {kind!r}; give one of IFEval's 25")
            check = cls(kind, {key: each.value[key] for key in sorted(each.keys()) if each.value[key] is not None})
            if any(_REPEATED_GROUP.search(word) for word in _words(check.kwargs)):
                raise InputError(f"{each.place}: a pattern that repeats a group can take for ever; give plain words")
            try:
                check.passes(PROBE)
            except Exception as error:  # the checkers look at nothing before they use it
                raise InputError(f"{each.place}: these do not fit {kind} ({error!r}); correct them") from None
            checks.append(check)
        return tuple(checks)

    def passes(self, response: str) -> bool:
        """Whether a response follows this instruction."""
        kinds = checkers()
        import langdetect

        langdetect.DetectorFactory.seed = 0
        state = random.getstate()
        random.seed(0)
        logged = logging.root.manager.disable
        logging.disable(logging.ERROR)  # the checkers tell the terminal of each text of no language
        try:
            checker = kinds[self.kind](self.kind)
            checker.build_description(**self.kwargs)
            return bool(response.strip() and checker.check_following(response))
        finally:
            random.setstate(state)
            logging.disable(logged)


def _words(kwargs: Mapping[str, Any]) -> list[str]:
    """All texts among the kwargs of a check, those in lists too."""
    values = [each for value in kwargs.values() for each in (value if isinstance(value, list) else [value])]
    return [value for value in values if isinstance(value, str)]


class Followed(NamedTuple):
    """For each instruction of a prompt, whether the response follows it."""

    strict: tuple[bool, ...]
    loose: tuple[bool, ...]


def judge(checks: Sequence[Check], response: str) -> Followed:
    """One response, to the letter and generously."""
    variants = generous(response)
    return Followed(
        tuple(check.passes(response) for check in checks),
        tuple(any(check.passes(variant) for variant in variants) for check in checks),
    )


def generous(response: str) -> list[str]:
    """The eight readings of a response."""
    lines = response.split("\n")
    parts = [response, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return [reading for part in parts for reading in (part, part.replace("*", ""))]


def total(followed: Sequence[Followed]) -> dict[str, float]:
    """The four accuracies, in per cent: prompts all of whose instructions are followed, and instructions."""
    found = {}
    for name in ("strict", "loose"):
        prompts = [getattr(one, name) for one in followed]
        single = [each for prompt in prompts for each in prompt]
        found[f"prompt_{name}"] = 100 * sum(map(all, prompts)) / len(prompts)
        found[f"instruction_{name}"] = 100 * sum(single) / len(single)
    return {
        f"{level}_{name}": found[f"{level}_{name}"]
        for level in ("prompt", "instruction")
        for name in ("strict", "loose")
    }


@functools.cache
def checkers() -> Mapping[str, Any]:
    """The authors' checker of each of the 25 types.

    Raises:
        AbsentError: they are not installed.
    """
    if importlib.util.find_spec("if_verifiable") is None or importlib.util.find_spec("punkt") is None:
        raise AbsentError(INSTALL)
    from tasks.metrics import punkt_model

    punkt_model.provide()
    from if_verifiable.ifeval.instructions_registry import INSTRUCTION_DICT

    return INSTRUCTION_DICT
