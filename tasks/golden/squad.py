"""SQuAD: articles, punctuation, foreign quotes, empty answers, repeated words, and every way to answer nothing."""

from collections.abc import Mapping
from functools import partial

from tasks._squad_files import Question
from tasks.bench.golden import Case, scored
from tasks.outputs.span import Span

ANSWERED = {
    "articles": (("The Blue Lighthouse", "blue lighthouse"), "a blue  lighthouse!"),
    "part": (("in 1907",), "1907"),
    "hyphen": (("Mara Quill-Ostrow",), "Mara QuillOstrow"),
    "quotes": (("“three” bells",), "three bells"),
    "nothing": (("the",), "a"),
    "order": (("an old an-vil",), "anvil old"),
    "twice": (("nine nine four",), "nine four four"),
    "best": (("harbour", "the north harbour wall"), "north wall"),
    "wrong": (("Ost",), "Wex"),
}
"""By id: the accepted answers of v1.1, and the one given."""
OFFICIAL_V1 = {"exact_match": 33.333333333333336, "f1": 62.59259259259258}

DOUBTED = {
    "articles": (("The Blue Lighthouse",), "blue lighthouse", -3.0),
    "part": (("in 1907",), "1907", -0.5),
    "dropped": (("the", "Quill"), "the", 0.4),
    "shy": (("nine bells",), "nine", 1.5),
    "best": (("Ost", "Ostrow"), "Ostrow", -0.2),
    "none": ((), "Wex", 2.0),
    "rash": ((), "the tower", -1.0),
    "silent": ((), "", -2.0),
}
"""By id: the accepted answers of v2.0, the best span, and how far "no answer" leads it, which counts above 0."""
OFFICIAL_V2 = {
    **{"exact": 50.0, "f1": 58.33333333333333, "total": 8},
    **{"HasAns_exact": 40.0, "HasAns_f1": 53.33333333333333, "HasAns_total": 5},
    **{"NoAns_exact": 66.66666666666667, "NoAns_f1": 66.66666666666667, "NoAns_total": 3},
    **{"best_exact": 50.0, "best_exact_thresh": -3.0, "best_f1": 66.66666666666666, "best_f1_thresh": 1.5},
}


def _question(name: str, answers: tuple[str, ...]) -> Question:
    return Question(name, "", "", "", answers, (0,) * len(answers))


def _references(answers: Mapping[str, tuple[str, ...]]) -> list[dict[str, object]]:
    return [
        {"id": name, "answers": {"text": list(texts), "answer_start": [0] * len(texts)}}
        for name, texts in answers.items()
    ]


def _metric_v1() -> Mapping[str, float]:
    """A question without a prediction counts as a wrong one, and a prediction without a question not at all."""
    from tasks.metrics.squad import SquadV1

    names = [name if name != "wrong" else "unasked" for name in ANSWERED]
    said = [{"id": name, "prediction_text": text} for name, (_, text) in zip(names, ANSWERED.values(), strict=True)]
    references = _references({name: answers for name, (answers, _) in ANSWERED.items()})
    return SquadV1().compute(predictions=said, references=references) or {}


def _metric_v2() -> Mapping[str, float]:
    from tasks.metrics.squad import SquadV2

    said = [
        {"id": name, "prediction_text": text, "no_answer_probability": lead}
        for name, (_, text, lead) in DOUBTED.items()
    ]
    references = _references({name: answers for name, (answers, _, _) in DOUBTED.items()})
    return SquadV2().compute(predictions=said, references=references, no_answer_threshold=0.0) or {}


_V1 = ("the official evaluate-v1.1.py", OFFICIAL_V1)
_V2 = ("the official evaluate-v2.0.py", OFFICIAL_V2)
_ASKED_V1 = [_question(name, answers) for name, (answers, _) in ANSWERED.items()]
_SAID_V1 = [Span(text, 0.0, 0.0) for _, text in ANSWERED.values()]
_ASKED_V2 = [_question(name, answers) for name, (answers, _, _) in DOUBTED.items()]
_SAID_V2 = [Span(text, 0.0, lead) for _, text, lead in DOUBTED.values()]

CASES = (
    Case("v1.1", *_V1, partial(scored, "squad", "v1.1", _ASKED_V1, _SAID_V1), ("v1.1",)),
    Case("v1.1 by evaluate", *_V1, _metric_v1),
    Case("v2.0", *_V2, partial(scored, "squad", "v2.0", _ASKED_V2, _SAID_V2), ("v2.0",)),
    Case("v2.0 by evaluate", *_V2, _metric_v2),
)
