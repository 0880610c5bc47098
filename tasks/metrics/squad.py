"""SQuAD v1.1 and v2.0 as `evaluate.Metric`s that are imported, never fetched from the hub.

from tasks.metrics.squad import SquadV1
SquadV1().compute(predictions=[{"id": "q1", "prediction_text": "Rome"}],
                  references=[{"id": "q1", "answers": {"text": ["Rome"], "answer_start": [0]}}])
"""

from typing import Any

import datasets
import evaluate

from tasks.metrics import squad_rules as rules

_CITATION = "Rajpurkar et al. 2016, https://arxiv.org/abs/1606.05250; 2018, https://arxiv.org/abs/1806.03822"
_REFERENCE = {
    "id": datasets.Value("string"),
    "answers": {
        "text": datasets.List(datasets.Value("string")),
        "answer_start": datasets.List(datasets.Value("int32")),
    },
}
_PREDICTION = {"id": datasets.Value("string"), "prediction_text": datasets.Value("string")}


class SquadV1(evaluate.Metric):
    """`exact_match` and `f1` in per cent; a question without a prediction counts 0."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="SQuAD v1.1: exact match and token F1.",
            citation=_CITATION,
            features=datasets.Features({"predictions": _PREDICTION, "references": _REFERENCE}),
        )

    def _compute(self, *, predictions: Any = None, references: Any = None, **_: Any) -> dict[str, float]:
        return rules.score_v1(_golds(references), {p["id"]: p["prediction_text"] for p in predictions})


class SquadV2(evaluate.Metric):
    """The official keys of v2.0 in per cent; `best_*` are oracles over the null probabilities."""

    def _info(self) -> evaluate.MetricInfo:
        prediction = {**_PREDICTION, "no_answer_probability": datasets.Value("float64")}
        return evaluate.MetricInfo(
            description="SQuAD v2.0: exact match and token F1 where a question may have no answer.",
            citation=_CITATION,
            features=datasets.Features({"predictions": prediction, "references": _REFERENCE}),
        )

    def _compute(
        self, *, predictions: Any = None, references: Any = None, no_answer_threshold: float = 1.0, **_: Any
    ) -> dict[str, float]:
        golds = _golds(references)
        texts = {p["id"]: p["prediction_text"] for p in predictions}
        if missing := sorted(golds.keys() - texts.keys()):
            raise ValueError(f"{len(missing)} of {len(golds)} questions have no prediction, first {missing[0]}")
        probabilities = {p["id"]: p["no_answer_probability"] for p in predictions}
        return rules.score_v2(golds, texts, probabilities, no_answer_threshold)


def _golds(references: Any) -> dict[str, list[str]]:
    return {reference["id"]: list(reference["answers"]["text"]) for reference in references}
