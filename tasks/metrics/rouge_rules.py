"""ROUGE-L by Google's `rouge_score`: the F-measure of the longest common subsequence, words stemmed, in per cent."""

import functools
from typing import Any


def rouge_l(prediction: str, reference: str) -> float:
    """One prediction against one reference, in per cent."""
    return 100 * _scorer().score(reference, prediction)["rougeL"].fmeasure


@functools.cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=True)
