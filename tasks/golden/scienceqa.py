"""ScienceQA: one set of problems in every column, answered in the words of each dialect."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from tasks._scienceqa_files import Problem
from tasks.bench.golden import Case, scored
from tasks.metrics.scienceqa_rules import Labels
from tasks.outputs.lm import Said
from tasks.scienceqa import Asked

NATURAL, SOCIAL, LANGUAGE = "natural science", "social science", "language science"
PROBLEMS = {
    "1": (3, 1, Labels(NATURAL, "grade2", "plants", text=True, image=True)),
    "2": (2, 0, Labels(NATURAL, "grade5", "plants", text=True, image=False)),
    "3": (3, 1, Labels(NATURAL, "grade9", "magnets", text=False, image=True)),
    "4": (2, 1, Labels(NATURAL, "grade12", "magnets", text=False, image=False)),
    "5": (4, 3, Labels(SOCIAL, "grade3", "rivers", text=True, image=False)),
    "6": (2, 0, Labels(SOCIAL, "grade7", "rivers", text=False, image=False)),
    "7": (2, 0, Labels(LANGUAGE, "grade4", "verbs", text=True, image=False)),
    "8": (3, 2, Labels(LANGUAGE, "grade10", "verbs", text=True, image=False)),
}
"""By pid: how many options there are, which is right, and the labels."""
COLUMNS = ("accuracy", "NAT", "SOC", "LAN", "TXT", "IMG", "NO", "G1-6", "G7-12")

STRICT = (
    "The answer is (B).",
    "The answer is A. BECAUSE: it is green. The answer is (A)",
    "The answer is (C)",
    "The answer is (A) or The answer is (B)",
    "So: The answer is (D).",
    "The answer is (C).",
    "The answer is Because",
    "BECAUSE: three. The answer is (C)!",
)
READ = (1, 0, 2, -1, 3, -1, -1, 2)
"""What a reader takes the texts of `STRICT` for, a dialect that has no script: -1 for no option there is."""
OFFICIAL = (
    "The answer is B.",
    "The answer is A. BECAUSE: a leaf is green.",
    "Look. The answer is C! The answer is short",
    "The answer is B or so",
    "The answer is Definitely",
    "I say: The answer is A).",
    "The answer is B.",
    "The answer is C, of three.",
)
LLAVA = (
    "B",
    "A. A leaf is green",
    "It may be so. The answer is C.",
    "b",
    "D",
    "A. Yes",
    "no idea",
    "The answer is C.",
)


LIKELIEST = (1, 0, 2, 1, 3, 0, 1, 2)
"""The options that `OFFICIAL` names, here as the likeliest ones."""


def _asked(name: str, options: int, answer: int, labels: Labels) -> Asked:
    image = Path(f"{name}.png") if labels.image else None
    problem = Problem(name, "test", "", tuple("abcde"[:options]), answer, "", "", image, labels)
    return Asked(problem, "", "", (), image)


ASKED = [_asked(name, *rest) for name, rest in PROBLEMS.items()]


def _said(text: str = "", likeliest: int = 0) -> Said:
    weights = tuple(-1.0 if option == likeliest else -2.5 for option in range(5))
    return Said(text, options=weights)


def _metric(texts: Sequence[str], dialect: str) -> Mapping[str, float]:
    from tasks.metrics.scienceqa import ScienceQA

    references = [
        {"id": name, "choices": list("abcde"[:options]), "answer": answer}
        for name, (options, answer, _) in PROBLEMS.items()
    ]
    said = [{"id": name, "prediction_text": text} for name, text in zip(PROBLEMS, texts, strict=True)]
    labels = [labels for _, _, labels in PROBLEMS.values()]
    return ScienceQA().compute(predictions=said, references=references, dialect=dialect, labels=labels) or {}


def _cases(dialect: str, by: str, texts: Sequence[str], numbers: Sequence[float], failed: float) -> list[Case]:
    official = {**dict(zip(COLUMNS, numbers, strict=True)), "extract_fail": failed}
    settings = {"scoring": "generate", "dialect": dialect, "answer_format": "A" if dialect != "strict" else "(A)"}
    in_a_cell = partial(scored, "scienceqa", "all", ASKED, [_said(text) for text in texts], **settings)
    return [
        Case(f"dialect {dialect}", by, official, in_a_cell, CELLS),
        Case(f"dialect {dialect} by evaluate", by, official, partial(_metric, texts, dialect)),
    ]


CELLS = ("text", "image", "all")
COUNTED = "the official evaluate_acc.py"
ALL_OFFICIAL = (75, 75, 100, 50, 80, 50, 100, 75, 75)
CASES = (
    *_cases("strict", f"{COUNTED}, of what a reader reads", STRICT, (50, 50, 50, 50, 80, 50, 0, 75, 25), 37.5),
    *_cases("official", f"run_gpt3.py and {COUNTED}", OFFICIAL, ALL_OFFICIAL, 0),
    *_cases("llava", f"LLaVA's eval_science_qa.py and {COUNTED}", LLAVA, (62.5, 50, 100, 50, 80, 50, 50, 75, 50), 25),
    Case(
        "likelihood",
        f"{COUNTED}, of the likeliest options",
        {f"{column}_likelihood": value for column, value in zip(COLUMNS, ALL_OFFICIAL, strict=True)},
        partial(
            scored, "scienceqa", "all", ASKED, [_said(likeliest=option) for option in LIKELIEST], scoring="likelihood"
        ),
        CELLS,
    ),
)
