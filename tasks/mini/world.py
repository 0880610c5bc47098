"""The generated world: scenes of things, the one source of truth that every mini task is drawn, told and asked from.

A thing has a kind, a color, a size, a pattern and a place on a lattice of three by three, which a picture shows; and an
owner, a holder, a material, a town and a price, which words alone tell. A scene is a few things, no two of which share
color and kind, place, person, material, town or price; so every fact has one answer.
What follows from several (above what is above) may have two: then the one that was told counts.

Scene `number` of a seed is drawn by `random.Random` from a string of both. It belongs to one split by a hash of its
content: `plain` (what the tiny backbones were pre-trained on), `fit` or `report`. One pair of color and kind in eight
is held out: a scene with such a thing belongs to `shift`, has more things, and is told and asked in other words
(`words.py`). So no scene is in two splits, no pre-training saw a task's scene, and nobody saw a held-out thing.

From here the rooms beside this one write each task's official files into the cache, where its usual loader reads them:

    pictures.py      a scene as 64 x 64 pixels
    words.py         its facts as statements and as questions, in usual and in new words
    plain.py         passages of plain statements, to pre-train on; never a task's format
    squad.py scienceqa.py coco_caption.py instruct.py vtab.py      the tasks' files
    pretrain/        the recipes of the three backbones in `backbones/`
"""

import hashlib
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

VERSION = 2
"""Raised whenever a scene, a sentence or a picture could change."""

COLORS = ("red", "green", "blue", "yellow", "black", "white", "purple", "orange")
KINDS = ("ball", "box", "cone", "star", "ring", "cross", "gem", "bar")
SIZES = ("small", "large")
PATTERNS = ("plain", "striped", "dotted")
PEOPLE = (
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
)
TOWNS = (
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
)
MATERIALS = ("wood", "glass", "iron", "clay", "stone", "paper", "wool", "silver")
PRICES = tuple(map(str, range(10, 30)))
SIDE = 3
"""Places along each side of the lattice."""
THINGS = {"usual": (2, 4), "shift": (4, 6)}
"""The fewest and the most things of a scene."""


@dataclass(frozen=True)
class Thing:
    """One thing; `place` is its column and its row, from the upper left."""

    color: str
    kind: str
    size: str
    pattern: str
    place: tuple[int, int]
    owner: str
    holder: str
    material: str
    town: str
    price: str

    @property
    def name(self) -> str:
        """What it is called, in a scene where nothing else is called so."""
        return f"{self.color} {self.kind}"


@dataclass(frozen=True)
class Scene:
    """Some things; its key is its content."""

    things: tuple[Thing, ...]

    @property
    def key(self) -> str:
        """The whole content, which says the split, and seeds whatever is drawn about the scene."""
        return repr(self.things)


def held_out(color: str, kind: str) -> bool:
    """Whether a pair is of the shift alone: each color once, and each kind once."""
    return (COLORS.index(color) + KINDS.index(kind)) % len(KINDS) == 5


def split_of(scene: Scene) -> str:
    """`plain` (half of all), `fit`, `report` or `shift`."""
    if any(held_out(thing.color, thing.kind) for thing in scene.things):
        return "shift"
    place = hashlib.sha256(scene.key.encode()).digest()[0] % 8
    return "plain" if place < 4 else "fit" if place < 7 else "report"


def scenes(split: str, seed: int = 0) -> Iterator[Scene]:
    """The scenes of a split, without end."""
    stream = "shift" if split == "shift" else "usual"
    for number in itertools.count():
        made = _scene(random.Random(f"scene {seed} {stream} {number}"), stream)
        if split_of(made) == split:
            yield made


def _scene(draw: random.Random, stream: str) -> Scene:
    """In the stream of the shift, the first thing is a held-out one; the others are not, in neither."""
    count = draw.randint(*THINGS[stream])
    pairs = [(color, kind) for color in COLORS for kind in KINDS]
    rare = draw.sample([pair for pair in pairs if held_out(*pair)], int(stream == "shift"))
    looks = rare + draw.sample([pair for pair in pairs if not held_out(*pair)], count - len(rare))
    lattice = [(column, row) for column in range(SIDE) for row in range(SIDE)]
    draw.shuffle(looks)
    people, places = draw.sample(PEOPLE, 2 * count), draw.sample(lattice, count)
    materials, towns, prices = (draw.sample(values, count) for values in (MATERIALS, TOWNS, PRICES))
    return Scene(
        tuple(
            Thing(
                *looks[number],
                draw.choice(SIZES),
                draw.choice(PATTERNS),
                places[number],
                people[number],
                people[count + number],
                materials[number],
                towns[number],
                prices[number],
            )
            for number in range(count)
        )
    )
