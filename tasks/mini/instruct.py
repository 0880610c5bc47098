"""Instructions about scenes, in the formats of Alpaca, self-instruct, IFEval and Vicuna.

To count, list, compare, rewrite, continue, answer: each response follows from what is said in the instruction, so one
alone is right, and its likelihood has no floor but zero. Alpaca's file is told of the fit scenes, its `_eval` and the
other sets of the report scenes, its `_shift` of the shift's.
"""

import json
import random
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from tasks.bench import cache
from tasks.mini import words, world
from tasks.mini.plain import NUMBERS

FILES = {
    "alpaca_data.json": ("fit", "alpaca", 1600),
    "alpaca_data_eval.json": ("report", "alpaca", 240),
    "alpaca_data_shift.json": ("shift", "alpaca", 240),
    "user_oriented_instructions.jsonl": ("report", "self_instruct", 48),
    "ifeval_input_data.jsonl": ("report", "ifeval", 48),
    "vicuna_bench_question.jsonl": ("report", "vicuna", 48),
}
"""The split of the scenes, the format, and the records, of each file."""


class Asked(NamedTuple):
    """An instruction, what it is about, and the response."""

    instruction: str
    input: str
    output: str


def folder() -> Path:
    """Every set under its official name, written once into the cache."""
    return cache.made(f"mini-instruct-{world.VERSION}", write)


def write(where: Path) -> None:
    """A list of records, or lines of them."""
    where.mkdir(parents=True)
    for name, (split, kind, size) in FILES.items():
        records = made(kind, split, size)
        text = json.dumps(records, indent=1)
        if name.endswith(".jsonl"):
            text = "".join(json.dumps(record) + "\n" for record in records)
        (where / name).write_text(text, encoding="utf-8")


def made(kind: str, split: str, size: int, seed: int = 3) -> list[dict[str, Any]]:
    """The records of a set."""
    asked = [instruction(scene, number) for number, scene in enumerate(islice(world.scenes(split, seed), size))]
    return [_FORMATS[kind](number, one) for number, one in enumerate(asked)]


def instruction(scene: world.Scene, number: int) -> Asked:
    """One about a scene; the six kinds take turns."""
    return _KINDS[number % len(_KINDS)](scene, random.Random(f"instruct {scene.key}"), world.split_of(scene) == "shift")


# Kinds


def _count(scene: world.Scene, _draw: random.Random, anew: bool) -> Asked:
    asked = "How many things are named?" if anew else "Count the things."
    told = " ".join(_looks(thing) for thing in scene.things)
    return Asked(asked, told, f"There are {NUMBERS[len(scene.things)]} things.")


def _list(scene: world.Scene, _draw: random.Random, anew: bool) -> Asked:
    asked = "Name every thing of the text." if anew else "List the things."
    told = " ".join(_looks(thing) for thing in scene.things)
    return Asked(asked, told, words.listed([f"the {thing.name}" for thing in scene.things]).capitalize() + ".")


def _compare(scene: world.Scene, draw: random.Random, anew: bool) -> Asked:
    one, other = draw.sample(scene.things, 2)
    asked = "What of the {} and the {} is of greater size?" if anew else "Compare the {} and the {}."
    larger, smaller = sorted((one, other), key=lambda thing: thing.size)
    said = f"The {larger.name} is bigger than the {smaller.name}."
    if one.size == other.size:
        said = f"The {one.name} and the {other.name} are of the same size."
    return Asked(asked.format(one.name, other.name), f"{_looks(one)} {_looks(other)}", said)


def _rewrite(scene: world.Scene, draw: random.Random, anew: bool) -> Asked:
    """From one wording to the other."""
    (fact,) = words.chosen(scene, draw, 1)
    first, second = (text.format(thing=fact.thing, value=fact.value) for text in words.RELATIONS[fact.relation].told)
    given, said = draw.choice([(first, second), (second, first)])
    return Asked("Write this in other words." if anew else "Rewrite the sentence.", given, said)


def _continue(scene: world.Scene, draw: random.Random, anew: bool) -> Asked:
    """A row that repeats, cut at any place after its second round."""
    names = [thing.name for thing in scene.things][: 4 if anew else 3]
    cut = draw.randrange(len(names))
    given = ", ".join([*names, *names, *names[:cut]])
    return Asked("What comes next in this row?" if anew else "Continue the row.", f"{given},", names[cut])


def _answer(scene: world.Scene, draw: random.Random, anew: bool) -> Asked:
    told = words.chosen(scene, draw, 6 if anew else 4, relations=2)
    fact = draw.choice(told)
    return Asked(words.ask(fact, anew), words.passage(told, draw, anew)[0], f"{fact.value}.")


_KINDS = (_count, _list, _compare, _rewrite, _continue, _answer)


def _looks(thing: world.Thing) -> str:
    return f"The {thing.name} is {thing.size} and {thing.pattern}."


# Formats


def _verifiable(key: int, asked: Asked) -> dict[str, Any]:
    """With one or two demands on the response."""
    draw = random.Random(f"demands {key}")
    word = asked.output.strip(".").split()[-1]
    demands = [
        (" Use no commas.", "punctuation:no_comma", {}),
        (" Use no capital letters.", "change_case:english_lowercase", {}),
        (f" Say {word}.", "keywords:existence", {"keywords": [word]}),
        (" Say less than 20 words.", "length_constraints:number_words", {"relation": "less than", "num_words": 20}),
    ]
    chosen = draw.sample(demands, draw.choice((1, 2)))
    return {
        "key": key,
        "prompt": f"{asked.input} {asked.instruction}" + "".join(text for text, _, _ in chosen),
        "instruction_id_list": [kind for _, kind, _ in chosen],
        "kwargs": [kwargs for _, _, kwargs in chosen],
    }


_FORMATS: dict[str, Callable[[int, Asked], dict[str, Any]]] = {
    "alpaca": lambda _, asked: asked._asdict(),
    "self_instruct": lambda number, asked: {
        "id": f"task {number}",
        "instruction": asked.instruction,
        "instances": [{"input": asked.input, "output": asked.output}],
    },
    "ifeval": _verifiable,
    "vicuna": lambda number, asked: {"question_id": number, "turns": [f"{asked.input} {asked.instruction}"]},
}
