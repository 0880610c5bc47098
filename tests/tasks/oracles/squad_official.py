"""SQuAD's official evaluation written a second time, from its description, to hold the first against.

Nothing is shared with `tasks.metrics`: tokens are found by another road, and thresholds by trying every one.
"""

import re


def tokens(text: str) -> list[str]:
    kept = "".join(c for c in text.lower() if c not in r"""!"#$%&'()*+,-./:;<=>?@[\]^_`{|}~""")
    return re.sub(r"\b(a|an|the)\b", " ", kept).split()


def overlap(one: list[str], other: list[str]) -> int:
    other = list(other)
    count = 0
    for token in one:
        if token in other:
            other.remove(token)
            count += 1
    return count


def f1(prediction: str, gold: str, version: int) -> float:
    found, wanted = tokens(prediction), tokens(gold)
    if version == 2 and not (found and wanted):
        return float(found == wanted)
    same = overlap(found, wanted)
    if same == 0:
        return 0.0
    precision, recall = same / len(found), same / len(wanted)
    return 2 * precision * recall / (precision + recall)


def em(prediction: str, gold: str) -> float:
    return float(" ".join(tokens(prediction)) == " ".join(tokens(gold)))


def v1(golds: dict[str, list[str]], predictions: dict[str, str]) -> dict[str, float]:
    ems = [max(em(predictions[k], g) for g in golds[k]) if k in predictions else 0.0 for k in golds]
    f1s = [max(f1(predictions[k], g, 1) for g in golds[k]) if k in predictions else 0.0 for k in golds]
    return {"exact_match": 100 * sum(ems) / len(golds), "f1": 100 * sum(f1s) / len(golds)}


def raw(gold: list[str], prediction: str) -> tuple[float, float]:
    kept = [g for g in gold if tokens(g)] or [""]
    return max(em(prediction, g) for g in kept), max(f1(prediction, g, 2) for g in kept)


def at_threshold(
    golds: dict[str, list[str]], predictions: dict[str, str], na_probs: dict[str, float], threshold: float
) -> dict[str, tuple[float, float]]:
    scores = {}
    for key, gold in golds.items():
        right = float(not gold)
        scores[key] = (right, right) if na_probs[key] > threshold else raw(gold, predictions[key])
    return scores


def v2(
    golds: dict[str, list[str]], predictions: dict[str, str], na_probs: dict[str, float], threshold: float
) -> dict[str, float]:
    scores = at_threshold(golds, predictions, na_probs, threshold)
    result: dict[str, float] = {}
    groups = {"": list(golds), "HasAns_": [k for k in golds if golds[k]], "NoAns_": [k for k in golds if not golds[k]]}
    for prefix, keys in groups.items():
        if keys:
            result[f"{prefix}exact"] = 100 * sum(scores[k][0] for k in keys) / len(keys)
            result[f"{prefix}f1"] = 100 * sum(scores[k][1] for k in keys) / len(keys)
            result[f"{prefix}total"] = len(keys)
    for column, name in enumerate(("exact", "f1")):
        tried = [min(na_probs.values()) - 1, *sorted(set(na_probs.values()))]
        totals = []
        for t in tried:
            answered = at_threshold(golds, predictions, na_probs, t)
            # An unanswerable question counts as right only where nothing was answered.
            kept = [answered[k][column] if golds[k] else float(na_probs[k] > t or not predictions[k]) for k in golds]
            totals.append(100 * sum(kept) / len(golds))
        result[f"best_{name}"] = max(totals)
    return result
