"""A small world made of facts: who lives where, works as what, likes what; told in passages and asked about.

Everything follows from the seed, in the formats of the real data sets, so the same code reads both.
"""

import random
from typing import Any

_PEOPLE = [
    "Mira",
    "Tobin",
    "Alda",
    "Joren",
    "Sela",
    "Pavel",
    "Nadia",
    "Corin",
    "Ines",
    "Bram",
    "Lotte",
    "Emil",
    "Rosa",
    "Hugo",
    "Vera",
    "Anton",
]
_TOWNS = [
    "Orlo",
    "Brindel",
    "Kasteg",
    "Munby",
    "Felt",
    "Varna",
    "Sorrow",
    "Quint",
    "Haldon",
    "Peria",
    "Tamsin",
    "Dorvik",
]
_TRADES = ["baker", "sailor", "weaver", "painter", "doctor", "teacher", "farmer", "smith", "miller", "singer"]
_FOODS = ["plums", "bread", "honey", "cheese", "apples", "soup", "olives", "pears", "walnuts", "rice"]
_ANIMALS = ["cat", "dog", "goat", "horse", "parrot", "rabbit", "donkey", "goose"]
_YEARS = [str(year) for year in range(1900, 1960, 3)]

_FACTS = (
    ("{name} lives in {it}.", "Where does {name} live?", _TOWNS),
    ("{name} works as a {it}.", "What does {name} work as?", _TRADES),
    ("{name} likes to eat {it}.", "What does {name} like to eat?", _FOODS),
    ("{name} keeps a {it}.", "Which animal does {name} keep?", _ANIMALS),
    ("{name} was born in {it}.", "When was {name} born?", _YEARS),
)
_FILLERS = (
    "The winter was long.",
    "Ships came every week.",
    "The market opens at dawn.",
    "Rain fell on the hills.",
)


def squad(seed: int = 0, train: int = 160, report: int = 40, unanswerable: float = 0.0) -> dict[str, dict[str, Any]]:
    """Two documents in the official SQuAD format, `train` and `eval`, with so many questions.

    Articles are towns' chronicles of two passages; no article occurs in both documents.
    """
    draw = random.Random(seed)
    return {
        role: {
            "version": "v2.0" if unanswerable else "1.1",
            "data": [
                _article(draw, f"{role} chronicle {n}", min(10, size - 10 * n), unanswerable)
                for n in range((size + 9) // 10)
            ],
        }
        for role, size in (("train", train), ("eval", report))
    }


def words() -> list[str]:
    """Every word the world is told in, lower case."""
    texts = [*_PEOPLE, *_TOWNS, *_TRADES, *_FOODS, *_ANIMALS, *_YEARS, *_FILLERS]
    texts += [text.format(name="", it="") for statement, question, _ in _FACTS for text in (statement, question)]
    return sorted({word.strip(".?") for text in texts for word in text.lower().split()} - {""})


def _article(draw: random.Random, title: str, questions: int, unanswerable: float) -> dict[str, Any]:
    passages = [
        _passage(draw, f"{title} {part}", count, unanswerable)
        for part, count in enumerate(((questions + 1) // 2, questions // 2))
        if count
    ]
    return {"title": title, "paragraphs": passages}


def _passage(draw: random.Random, key: str, questions: int, unanswerable: float) -> dict[str, Any]:
    """Three people, two facts of each, in any order among fillers; asked about some."""
    told = [(name, fact, draw.choice(fact[2])) for name in draw.sample(_PEOPLE, 3) for fact in draw.sample(_FACTS, 2)]
    draw.shuffle(told)
    context, starts = "", []
    for name, (statement, _, _), it in told:
        if draw.random() < 0.3:
            context += draw.choice(_FILLERS) + " "
        sentence = statement.format(name=name, it=it)
        starts.append(len(context) + sentence.rindex(it))
        context += sentence + " "
    context = context.strip()
    asked = []
    for number, place in enumerate(draw.sample(range(len(told)), questions)):
        name, (_, question, _), it = told[place]
        missing = draw.random() < unanswerable
        if missing:
            name = draw.choice([person for person in _PEOPLE if person not in context])
        answers = [] if missing else [{"text": it, "answer_start": starts[place]}]
        record = {"id": f"{key} {number}", "question": question.format(name=name), "answers": answers}
        asked.append(record | ({"is_impossible": missing} if unanswerable else {}))
    return {"context": context, "qas": asked}
