"""What a cell must hold for a report to be made of it: looked at as it is read, so that nothing later need doubt it."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Kind = tuple[str, Callable[[Any], bool]]
"""What belongs somewhere, in words, and whether a value is that."""

LARGEST = 2**63
"""No whole number of a cell is as large."""
GROUPS = ("training", "task", "method")


def _whole(value: Any) -> bool:
    return type(value) is int and abs(value) < LARGEST


def _number(value: Any) -> bool:
    return type(value) is float or _whole(value)


TEXT: Kind = ("a text", lambda value: isinstance(value, str))
WHOLE: Kind = ("a whole number", _whole)
COUNT: Kind = ("a whole number above 0", lambda value: _whole(value) and value > 0)
NUMBER: Kind = ("a number", _number)
OBJECT: Kind = ("an object", lambda value: isinstance(value, dict))
ANY: Kind = ("there", lambda _: True)


def _or_null(kind: Kind) -> Kind:
    return f"{kind[0]} or null", lambda value: value is None or kind[1](value)


CONFIG: Mapping[str, Kind] = {
    **dict.fromkeys(("task", "dataset", "tier", "backbone", "method", "device"), TEXT),
    **dict.fromkeys(("checkpoint", "adapter"), _or_null(TEXT)),
    **dict.fromkeys(("sources", "versions", "settings"), OBJECT),
    **{"seed": WHOLE, "limit": _or_null(WHOLE), "skip_bad": WHOLE},
}
FACTS: Mapping[str, Kind] = {
    **dict.fromkeys(("selection", "protocol", "device", "fingerprint"), TEXT),
    **dict.fromkeys(("trainable_params", "head_params"), _or_null(WHOLE)),
    **dict.fromkeys(("checkpoint", "weights_sha256", "dirty"), ANY),
    "train_seconds": NUMBER,
}
PART: Mapping[str, Kind] = {"n": COUNT, "n_expected": WHOLE, "scores": OBJECT}
FAULTS: Kind = _or_null(WHOLE)


def of_cell(config: Mapping[str, Any], result: Mapping[str, Any]) -> Iterator[str]:
    """What is not as it should be in a cell's configuration and result, the place and what belongs there."""
    yield from _wrong("", config, CONFIG)
    settings = config.get("settings")
    if isinstance(settings, dict):
        yield from _wrong("settings.", settings, dict.fromkeys(GROUPS, OBJECT))
        yield from (f"settings.{group} is no group of settings" for group in settings if group not in GROUPS)
    yield from _wrong("", result, {"splits": OBJECT})
    notes = result.get("notes")
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        yield "notes is not a list of texts"
    splits = result.get("splits")
    if isinstance(splits, dict):
        if "report" in splits:
            yield from _wrong("facts.", result["facts"], FACTS)
        for split, part in splits.items():
            yield from _of_part(f"splits.{split}", part)


def _of_part(place: str, part: Any) -> Iterator[str]:
    if not isinstance(part, dict):
        yield f"{place} is not an object"
        return
    yield from _wrong(f"{place}.", part, PART)
    faults = {name: FAULTS for name in ("extract_fail", "empty", "truncated") if name in part}
    yield from _wrong(f"{place}.", part, faults)
    scores = part.get("scores")
    for metric, score in scores.items() if isinstance(scores, dict) else ():
        if not (isinstance(score, list) and len(score) == 2 and _number(score[0])):
            yield f"{place}.scores.{metric} is not a number and its standard error"


def of_log(log: Mapping[str, Any]) -> Iterator[str]:
    """What is not as it should be in a cell's log."""
    losses, gates = log.get("loss", []), log.get("gates") or []
    if not _numbers(losses):
        yield "loss is not a list of numbers"
    if not isinstance(gates, list) or not all(_is_look(look, gates[0]) for look in gates):
        yield "gates is not a list of steps, each with the gates of the same layers"


def _is_look(look: Any, first: Any) -> bool:
    """Whether these are a step and its gates by layer, and as many as in the first one."""
    if not (isinstance(look, list) and len(look) == 2 and _whole(look[0]) and isinstance(look[1], dict) and look[1]):
        return False
    sizes = {layer: len(heads) for layer, heads in look[1].items() if _numbers(heads) and heads}
    return len(sizes) == len(look[1]) and (look is first or sizes == {key: len(each) for key, each in first[1].items()})


def _numbers(values: Any) -> bool:
    return isinstance(values, list) and all(map(_number, values))


def _wrong(place: str, values: Mapping[str, Any], kinds: Mapping[str, Kind]) -> Iterator[str]:
    for key, (wanted, fits) in kinds.items():
        if key not in values:
            yield f"{place}{key} is missing"
        elif not fits(values[key]):
            yield f"{place}{key} is not {wanted}"
