"""Instructions: likelihoods in closed form, the ROUGE paper's sentences, IFEval's verdicts, verdicts of a judge."""

import json
import math
from collections.abc import Mapping, Sequence
from functools import partial

from tasks._instruct_files import Instruction
from tasks.bench.golden import Case, scored
from tasks.metrics.ifeval_rules import Check
from tasks.metrics.pairwise import Judgment, totals, verdict
from tasks.outputs.lm import Said

WEIGHED = (("eight b", 3), ("nine byte", 5))
"""Responses of 4 tokens each, 16 bytes together, and how many bits each costs: one a token in all, half a byte."""
LIKELIHOODS = {"nll": math.log(2), "perplexity": 2.0, "bits_per_byte": 0.5}

COMPARED = (
    ("the gunman kill police", "police killed the gunman"),
    ("the gunman police killed", "police killed the gunman"),
    ("Police, kills: the GUNMAN!", "police killed the gunman"),
    ("nobody", "police killed the gunman"),
    ("police killed the gunman", "police killed the gunman"),
)
"""Two sentences of Lin 2004, section 3.1, each of half a common subsequence; all stems, none of them, the same."""
ROUGE_L = {"rouge_l": 60.0}

CHECKED: Sequence[tuple[Mapping[str, Mapping[str, object]], str]] = (
    (
        {
            "punctuation:no_comma": {},
            "length_constraints:number_words": {"relation": "at least", "num_words": 5},
        },
        "Boats sail at dawn, always.",
    ),
    (
        {
            "length_constraints:number_sentences": {"relation": "at least", "num_sentences": 4},
            "keywords:existence": {"keywords": ["tired"]},
        },
        "Dr. Smith left the U.S. in May. He was tired! Was he?",
    ),
    ({"startend:quotation": {}}, 'Here it is:\n"Only the sea knows."'),
    (
        {
            "language:response_language": {"language": "fr"},
            "keywords:frequency": {"keyword": "chat", "frequency": 2, "relation": "at least"},
        },
        "Le chat dort sur la table et la nuit est longue.",
    ),
    (
        {"change_case:english_lowercase": {}, "detectable_format:number_bullet_lists": {"num_bullets": 2}},
        "these are two kinds of boats:\n* red ones\n* blue ones",
    ),
    ({"punctuation:no_comma": {}}, " \n"),
)
"""What is verified, and the response."""
IFEVAL = {
    **{"prompt_strict": 16.666666666666668, "prompt_loose": 33.333333333333336},
    **{"instruction_strict": 50.0, "instruction_loose": 60.0},
}

JUDGED = (
    ("Ours is clear. [[A]]", "The second is. [[B]]"),
    ("[[A]]", "[[A]]"),
    ("[[B]]", "[[B]]"),
    ("[[C]]", "[[B]]"),
    ("[[B]]", "Better: [[A]]"),
    ("[[C]]", "[[C]]"),
    ("I cannot say.", "[[A]]"),
    ("So [[A]]", "[[B]], as said"),
)
"""A judge's words about ours and theirs, with ours shown first and second."""
FASTCHAT = {"win": 2, "loss": 1, "tie": 4, "win_rate": 57.14285714285714}


def _said(text: str, bits: int = 0) -> Said:
    return Said(text, bits * math.log(2), 4 * bool(bits), new_tokens=4)


def _cell(dataset: str, asked: Sequence[Instruction], said: Sequence[Said]) -> partial[Mapping[str, float]]:
    return partial(scored, "instruct", dataset, asked, said, max_new_tokens=8)


def _rouge() -> Mapping[str, float]:
    from tasks.metrics.rouge import RougeL

    said, references = zip(*COMPARED, strict=True)
    return RougeL().compute(predictions=list(said), references=list(references)) or {}


def _ifeval() -> Mapping[str, float]:
    from tasks.metrics.ifeval import IfEval

    references = [
        {"instruction_id_list": list(checks), "kwargs": [json.dumps(kwargs) for kwargs in checks.values()]}
        for checks, _ in CHECKED
    ]
    return IfEval().compute(predictions=[said for _, said in CHECKED], references=references) or {}


def _judged() -> Mapping[str, float]:
    return totals([Judgment(str(n), verdict(first), verdict(second)) for n, (first, second) in enumerate(JUDGED)])


_WEIGHED = [Instruction(text, "Do.", target=text) for text, _ in WEIGHED]
_COMPARED = [Instruction(str(n), "Tell.", target=wanted) for n, (_, wanted) in enumerate(COMPARED)]
_CHECKED = [
    Instruction(str(n), "Do.", checks=tuple(Check(kind, kwargs) for kind, kwargs in checks.items()))
    for n, (checks, _) in enumerate(CHECKED)
]

LIN = "Lin 2004 and the definition of ROUGE-L"
AUTHORS = "the checkers and evaluation_lib.py of IFEval's authors"
CASES = (
    Case(
        "likelihoods",
        "the closed form",
        LIKELIHOODS,
        _cell("alpaca", _WEIGHED, [_said(text, bits) for text, bits in WEIGHED]),
        ("alpaca", "self_instruct"),
    ),
    Case(
        "ROUGE-L",
        LIN,
        ROUGE_L,
        _cell("self_instruct", _COMPARED, [_said(text, 1) for text, _ in COMPARED]),
        ("self_instruct",),
    ),
    Case("ROUGE-L by evaluate", LIN, ROUGE_L, _rouge),
    Case("IFEval", AUTHORS, IFEVAL, _cell("ifeval", _CHECKED, [_said(said) for _, said in CHECKED]), ("ifeval",)),
    Case("IFEval by evaluate", AUTHORS, IFEVAL, _ifeval),
    Case(
        "length of answers",
        "a count by hand",
        {"answer_words": 3.0},
        _cell("vicuna", _CHECKED[:2], [_said("two words"), _said("a\nfew  more words")]),
        ("vicuna",),
    ),
    Case("pairs", "FastChat's judge and show_result.py", FASTCHAT, _judged),
)
