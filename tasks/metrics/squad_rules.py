"""The official SQuAD rules, v1.1 and v2.0: what counts as the same answer, and how answers add up.

Follows `evaluate-v1.1.py` and `evaluate-v2.0.py` of https://rajpurkar.github.io/SQuAD-explorer, with one
repair: the best threshold moves only between distinct scores, so ties cannot be split in the model's favor.
Everything is in per cent.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)

Golds = Mapping[str, Sequence[str]]
"""The accepted answers of each question id; an empty sequence where there is no answer."""


class Scored(NamedTuple):
    """One question: is it answerable, was anything answered, and how well (0 to 1)."""

    answerable: bool
    answered: bool
    exact: float
    f1: float


def normalize(text: str) -> str:
    """Lower case, without ASCII punctuation, English articles and extra white space, in that order."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact(prediction: str, gold: str) -> float:
    """1.0 where both are the same once normalized."""
    return float(normalize(prediction) == normalize(gold))


def f1_v1(prediction: str, gold: str) -> float:
    """F1 over the multisets of tokens; 0 without overlap, even where both are empty."""
    found, wanted = normalize(prediction).split(), normalize(gold).split()
    same = sum((Counter(found) & Counter(wanted)).values())
    return 2 * same / (len(found) + len(wanted)) if same else 0.0


def f1_v2(prediction: str, gold: str) -> float:
    """As `f1_v1`, but where either side has no tokens: 1 if neither has, else 0."""
    if not normalize(prediction) or not normalize(gold):
        return float(normalize(prediction) == normalize(gold))
    return f1_v1(prediction, gold)


def question_v1(prediction: str, golds: Sequence[str]) -> Scored:
    """The best of the accepted answers, for exact match and F1 apart."""
    return _best(prediction, golds, f1_v1, answerable=True)


def question_v2(prediction: str, golds: Sequence[str]) -> Scored:
    """As `question_v1`, without answers that normalize to nothing; with none left, nothing is the answer."""
    kept = [gold for gold in golds if normalize(gold)]
    return _best(prediction, kept or [""], f1_v2, answerable=bool(golds))


def _best(prediction: str, golds: Sequence[str], f1: Callable[[str, str], float], *, answerable: bool) -> Scored:
    return Scored(
        answerable,
        bool(prediction),
        max(exact(prediction, gold) for gold in golds),
        max(f1(prediction, gold) for gold in golds),
    )


def score_v1(golds: Golds, predictions: Mapping[str, str]) -> dict[str, float]:
    """Exact match and F1; a question without a prediction counts 0 and stays in the denominator."""
    missing = Scored(answerable=True, answered=False, exact=0.0, f1=0.0)
    scored = [
        question_v1(predictions[key], answers) if key in predictions else missing for key, answers in golds.items()
    ]
    return total_v1(scored)


def total_v1(scored: Sequence[Scored]) -> dict[str, float]:
    """The keys of v1.1 from its questions."""
    return {"exact_match": _mean([s.exact for s in scored]), "f1": _mean([s.f1 for s in scored])}


def score_v2(
    golds: Golds,
    predictions: Mapping[str, str],
    na_probs: Mapping[str, float] | None = None,
    na_threshold: float = 1.0,
) -> dict[str, float]:
    """The official keys of v2.0.

    Args:
        golds: accepted answers by id.
        predictions: a text by id, empty for "no answer".
        na_probs: the probability of "no answer" by id; with it come the `best_*` keys.
        na_threshold: above it a question is taken as not answered, whatever its prediction.

    Raises:
        KeyError: an id has no prediction, or no probability where these are given.
    """
    scored = {key: question_v2(predictions[key], answers) for key, answers in golds.items()}
    if na_probs is None:
        return total_v2(list(scored.values()))
    refused = {key for key in scored if na_probs[key] > na_threshold}
    kept = [_refuse(s) if key in refused else s for key, s in scored.items()]
    return {**total_v2(kept), **oracle(list(scored.values()), [na_probs[key] for key in scored])}


def _refuse(scored: Scored) -> Scored:
    right = float(not scored.answerable)
    return Scored(scored.answerable, False, right, right)


def groups(scored: Sequence[Scored]) -> dict[str, list[Scored]]:
    """All questions, those with and those without an answer, by the prefix of their keys; none is empty."""
    found = {
        "": list(scored),
        "HasAns_": [s for s in scored if s.answerable],
        "NoAns_": [s for s in scored if not s.answerable],
    }
    return {prefix: group for prefix, group in found.items() if group}


def total_v2(scored: Sequence[Scored]) -> dict[str, float]:
    """The keys of v2.0 from its questions."""
    return {
        prefix + key: value
        for prefix, group in groups(scored).items()
        for key, value in (
            ("exact", _mean([s.exact for s in group])),
            ("f1", _mean([s.f1 for s in group])),
            ("total", len(group)),
        )
    }


def oracle(scored: Sequence[Scored], null_scores: Sequence[float]) -> dict[str, float]:
    """The best that one threshold on the null scores could reach; it is chosen on the scored set itself."""
    best_exact, exact_threshold = _best_threshold(scored, null_scores, lambda s: s.exact)
    best_f1, f1_threshold = _best_threshold(scored, null_scores, lambda s: s.f1)
    return {
        "best_exact": best_exact,
        "best_exact_thresh": exact_threshold,
        "best_f1": best_f1,
        "best_f1_thresh": f1_threshold,
    }


def _best_threshold(
    scored: Sequence[Scored], null_scores: Sequence[float], quality: Callable[[Scored], float]
) -> tuple[float, float]:
    """Walk the scores upward, answering one more group of equal scores at each step; keep the best prefix."""
    current = best = float(sum(not s.answerable for s in scored))
    # 0.0, as officially, refuses every question only where every score lies above it.
    lowest = min(null_scores)
    threshold = 0.0 if lowest > 0 else lowest - 1.0
    ranked = sorted(zip(null_scores, scored, strict=True), key=lambda pair: pair[0])
    for place, (score, question) in enumerate(ranked):
        current += quality(question) if question.answerable else -float(question.answered)
        last_of_ties = place + 1 == len(ranked) or ranked[place + 1][0] != score
        if last_of_ties and current > best:
            best, threshold = current, score
    return 100 * best / len(scored), threshold


def _mean(values: Sequence[float]) -> float:
    return 100 * sum(values) / len(values)
