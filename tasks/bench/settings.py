"""Settings: what was written, as `KEY=VALUE` or in a suite, made the values of the fields it names.

They come in groups, each a dataclass. A key is written `learning_rate` or, where two groups share a name,
`method.length`.
"""

import dataclasses
import functools
import math
import tomllib
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.bench.errors import InputError


def merged(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All layers in one; a later `steps` takes back the `epochs` of an earlier one."""
    settings: dict[str, Any] = {}
    for layer in layers:
        if {"steps", "training.steps"} & layer.keys():
            settings = {key: value for key, value in settings.items() if key not in ("epochs", "training.epochs")}
        settings |= layer
    return settings


def parse_settings(pairs: list[str], flag: str = "--set") -> dict[str, Any]:
    """`KEY=VALUE` pairs; a value is written as in TOML, quotes around words may be left out."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            example = {"--only": "method=lora"}.get(flag, "learning_rate=3e-2")
            raise InputError(f"{flag} {pair!r} is not KEY=VALUE: write for example {flag} {example}")
        settings[key.strip()] = _value(text.strip())
    return settings


def _value(text: str) -> Any:
    if text.lower() in ("none", "true", "false"):
        return {"none": None, "true": True, "false": False}[text.lower()]
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except (ValueError, RecursionError):  # more digits or brackets than can be read are no TOML either
        return text


def assign(kinds: Mapping[str, type], settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Each setting to the group that has its key."""
    known = {f"{group}.{f.name}": f.name for group, kind in kinds.items() for f in dataclasses.fields(kind)}
    values: dict[str, dict[str, Any]] = {group: {} for group in kinds}
    # Names with their group last: `method.length` beats an earlier or later bare `length`.
    for key in sorted(settings, key=lambda key: "." in key):
        full = [key] if key in known else [name for name, bare in known.items() if bare == key]
        if not full:
            raise InputError(f"there is no setting {key!r}: the known ones are {', '.join(sorted(known))}")
        if len(full) > 1:
            raise InputError(f"the setting {key!r} could be any of {', '.join(full)}: write one of these")
        group, name = full[0].split(".")
        values[group][name] = _checked(full[0], settings[key], _hints(kinds[group])[name])
    return values


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _checked(key: str, value: Any, hint: Any) -> Any:
    """The value as its field wants it."""
    from zeroinit.methods import fits

    if isinstance(value, list):
        value = tuple(value)
    value = "none" if value is None and fits("none", hint) and not fits(None, hint) else value  # a choice of that name
    if isinstance(value, float) and value.is_integer() and not fits(value, hint) and fits(int(value), hint):
        value = int(value)
    if _is_beyond(value):
        raise InputError(f"the setting {key} is a number of too many digits; give a smaller one")
    if not fits(value, hint):
        wanted = hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
        raise InputError(f"the setting {key} is {value!r}, which is not {wanted}")
    return float(value) if hint is float else value


def _is_beyond(value: Any) -> bool:
    """Whether there is a whole number in it that is none of a computer's numbers, nor can be shown."""
    try:
        repr(value)
        [float(each) for each in (value if isinstance(value, tuple) else (value,)) if isinstance(each, int)]
    except (OverflowError, ValueError):
        return True
    return False


def check_finite(groups: Mapping[str, Any]) -> None:
    """Refuse what JSON has no number for: a cell would be written that no command can read, nor its store."""
    for group, fields in groups.items():
        for name, value in vars(fields).items():
            numbers = value if isinstance(value, tuple) else (value,)
            if not all(math.isfinite(number) for number in numbers if isinstance(number, float)):
                raise InputError(f"the setting {group}.{name} is {value}: give a finite number")
