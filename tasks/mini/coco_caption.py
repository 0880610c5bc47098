"""A small COCO in the official layout: painted scenes, and five sentences about each.

A caption tells of all things by name, or of the first two in reading order and how they lie. Pictures of the shift show
held-out things, more of them, and are described in other sentences.
"""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from tasks.bench import cache
from tasks.mini import words, world
from tasks.mini.pictures import painted
from tasks.mini.plain import NUMBERS

SIZES = {"train2017": ("fit", 240), "val2017": ("report", 100), "shift": ("shift", 100)}
"""The split of the scenes, and the pictures, of each file."""
SENTENCES = (
    "{A} is {place} {b}.",
    "There is {a} {place} {sized_b}.",
    "A picture of {all}.",
    "{Number} things are here, {all}.",
    "The {one} is {place} the {other}.",
)
SENTENCES_ANEW = (
    "{A} lies {place} {b}.",
    "One can see {a} {place} {sized_b}.",
    "It shows {all}.",
    "Here are {all}, which is {number} things.",
    "We see the {one} {place} the {other}.",
)


def folder() -> Path:
    """The pictures and the files of annotations, written once into the cache."""
    return cache.made(f"mini-coco-{world.VERSION}", write)


def write(where: Path) -> None:
    """`captions_<split>.json`, and the pictures in a folder a split."""
    number = 0
    for name, (split, size) in SIZES.items():
        (where / name).mkdir(parents=True)
        images, annotations = [], []
        for scene in islice(scenes(split), size):
            number += 1
            file = f"{number:012d}.png"
            painted(scene).save(where / name / file)
            images.append({"id": number, "file_name": file})
            told = enumerate(captions(scene))
            annotations += [{"image_id": number, "id": 10 * number + k, "caption": text} for k, text in told]
        text = json.dumps({"images": images, "annotations": annotations}, indent=1)
        (where / f"captions_{name}.json").write_text(text, encoding="utf-8")


def scenes(split: str) -> Iterator[world.Scene]:
    """Those that are painted: the usual ones show two or three things."""
    return (scene for scene in world.scenes(split, seed=1) if split == "shift" or len(scene.things) <= 3)


def captions(scene: world.Scene) -> list[str]:
    """The five sentences."""
    things = sorted(scene.things, key=lambda thing: thing.place[::-1])
    one, other, *_ = things
    every = words.listed([words.article(thing.name) for thing in things])
    filled = {
        "a": words.article(one.name),
        "b": words.article(other.name),
        "sized_b": words.article(f"{other.size} {other.name}"),
        "one": one.name,
        "other": other.name,
        "place": "left of" if one.place[1] == other.place[1] else "above",
        "all": every,
        "number": NUMBERS[len(things)],
    }
    filled |= {"A": filled["a"].capitalize(), "Number": filled["number"].capitalize()}
    sentences = SENTENCES_ANEW if world.split_of(scene) == "shift" else SENTENCES
    return [sentence.format(**filled) for sentence in sentences]
