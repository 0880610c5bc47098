"""ROUGE-L as an `evaluate.Metric` that is imported, never fetched from the hub.

The F-measure of the longest common subsequence, words stemmed, by Google's `rouge_score`, in per cent; as in
self-instruct and Super-NaturalInstructions.
"""

from typing import Any

import datasets
import evaluate

from tasks.metrics.rouge_rules import rouge_l


class RougeL(evaluate.Metric):
    """`rouge_l`: the mean over predictions, each against its one reference."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description="ROUGE-L: the longest common subsequence of stemmed words.",
            citation="Lin 2004, https://aclanthology.org/W04-1013",
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(self, *, predictions: Any = None, references: Any = None, **_: Any) -> dict[str, float]:
        scores = [rouge_l(said, wanted) for said, wanted in zip(predictions, references, strict=True)]
        return {"rouge_l": sum(scores) / len(scores)}
