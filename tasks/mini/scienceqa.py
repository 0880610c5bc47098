"""A small ScienceQA in the official layout: what a text tells, what a picture shows, and what a word means.

A third of the problems each; `train` and `val` are of fit scenes, `test` of report scenes, and a file of its own, in
the same format, of the shift's. Wrong options are answers of the same kind, from the same passage where it has some.
"""

import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import count, cycle
from pathlib import Path
from typing import Any

from tasks.bench import cache
from tasks.mini import plain, words, world
from tasks.mini.pictures import painted

SIZES = {"train": ("fit", 900), "val": ("fit", 90), "test": ("report", 240), "shift": ("shift", 240)}
"""The split of the scenes, and the problems, of each part; those of the shift are all of `test` in their file."""

Problem = dict[str, Any]


def folder() -> Path:
    """The official layout with every problem and picture, written once into the cache."""
    return cache.made(f"mini-scienceqa-{world.VERSION}", write)


def write(where: Path) -> None:
    """problems.json, pid_splits.json, problems_shift.json, and the pictures."""
    pids, problems, splits = count(1), defaultdict(dict), defaultdict(list)
    streams = {split: world.scenes(split, seed=2) for split, _ in SIZES.values()}
    told: dict[str, str] = {}
    for part, (split, size) in SIZES.items():
        for make, _ in zip(cycle((_told, _shown, _known)), range(size), strict=False):
            pid, said = str(next(pids)), "test" if part == "shift" else part
            scene, problem = next(
                each for each in _problems(streams[split], make) if told.setdefault(_words(each), part) == part
            )
            problems[part == "shift"][pid] = problem | {"split": said, "grade": f"grade{int(pid) % 12 + 1}"}
            splits[said] += [pid] if part != "shift" else []
            if problem["image"]:
                path = where / "images" / said / pid / problem["image"]
                path.parent.mkdir(parents=True)
                painted(scene).save(path)
    files = {"problems": problems[False], "pid_splits": splits, "problems_shift": problems[True]}
    for name, document in files.items():
        (where / f"{name}.json").write_text(json.dumps(document, indent=1), encoding="utf-8")


def _problems(
    scenes: Iterator[world.Scene], make: Callable[[world.Scene, random.Random, bool], Problem | None]
) -> Iterator[tuple[world.Scene, Problem]]:
    """One of each of the next scenes that such a problem can be made of."""
    for scene in scenes:
        if problem := make(scene, random.Random(f"scienceqa {scene.key}"), world.split_of(scene) == "shift"):
            yield scene, problem


def _words(made: tuple[world.Scene, Problem]) -> str:
    """What a problem asks, by which no two parts share one; of a picture it is the scene that differs."""
    scene, problem = made
    return repr((problem["question"], problem["hint"], sorted(problem["choices"]), problem["image"] and scene.key))


def _told(scene: world.Scene, draw: random.Random, anew: bool) -> Problem:
    """A passage of a few facts, and a question about one."""
    told = words.chosen(scene, draw, 5 if anew else 3, relations=2)
    fact = draw.choice(told)
    near = [other.value for other in told if other.relation == fact.relation and other.value != fact.value]
    far = [value for value in words.RELATIONS[fact.relation].values if value not in (fact.value, *near)]
    others = list(dict.fromkeys(near)) + draw.sample(far, 3)
    passage, _ = words.passage(told, draw, anew)
    # As in the real ones, what is asked about stands in the hint, or in the question itself.
    told_where = {"hint": passage, "question": words.ask(fact, anew)}
    if draw.random() < 0.3:
        told_where = {"hint": "", "question": f"{words.ask(fact, anew)}\n{passage}"}
    return told_where | _problem(draw, fact.value, others, ("social science", "geography"))


def _shown(scene: world.Scene, draw: random.Random, anew: bool) -> Problem | None:
    """What only the picture tells, about a thing that is one of its kind or color; None where there is no such."""
    thing = scene.things[0]
    kinds, colors = [t.kind for t in scene.things], [t.color for t in scene.things]
    ways = []
    if kinds.count(thing.kind) == 1:
        ways.append((f"What color is the {thing.kind}?", f"Which color does the {thing.kind} have?", "color"))
    if colors.count(thing.color) == 1:
        ways.append((f"What kind of thing is {thing.color}?", f"Which kind is the {thing.color} thing?", "kind"))
    if not ways:
        return None
    asked, asked_anew, aspect = draw.choice(ways)
    answer, values = getattr(thing, aspect), {"color": world.COLORS, "kind": world.KINDS}[aspect]
    others = draw.sample([value for value in values if value != answer], 3)
    problem = _problem(draw, answer, others, ("natural science", "physics"))
    return problem | {"hint": "", "question": asked_anew if anew else asked, "image": "image.png"}


def _known(_scene: world.Scene, draw: random.Random, anew: bool) -> Problem:
    """What a word means, which neither a text nor a picture tells."""
    (name, values), *rest = draw.sample(sorted(plain.CLASSES.items()), 4)
    others = [draw.choice(values) for _, values in rest]
    question = f"Which word is {name}?" if anew else f"Which of these is {name}?"
    problem = _problem(draw, draw.choice(values), others, ("language science", "vocabulary"))
    return {"hint": "", "question": question} | problem


def _problem(draw: random.Random, answer: str, others: list[str], about: tuple[str, str]) -> Problem:
    """Two to four options in any order."""
    choices = [answer, *others[: draw.randint(1, 3)]]
    draw.shuffle(choices)
    subject, topic = about
    return {"choices": choices, "answer": choices.index(answer), "subject": subject, "topic": topic, "image": None}
