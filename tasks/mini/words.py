"""Facts in words: each relation is told in a few ways, recalled in one, asked in one; and all anew for the shift.

A fact is a relation, a thing and a value. Where the value is another thing, as with `left`, both are called by name:
`Fact("left", "red ball", "blue box")` is *The blue box is left of the red ball.*
"""

import itertools
import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tasks.mini.world import COLORS, KINDS, MATERIALS, PEOPLE, PRICES, TOWNS, Scene, held_out

THINGS = tuple(f"{color} {kind}" for color in COLORS for kind in KINDS if not held_out(color, kind))
"""What the shift alone has is no wrong answer elsewhere either."""


class Relation(NamedTuple):
    """How a fact is worded; `{thing}` and `{value}` are put in."""

    told: tuple[str, ...]
    recalled: str
    """Ends with the value, so that whoever read the fact before can say it."""
    asked: str
    told_anew: str
    asked_anew: str
    values: Sequence[str]


RELATIONS: Mapping[str, Relation] = {
    "owner": Relation(
        ("The {thing} belongs to {value}.", "{value} owns the {thing}."),
        "The one who owns the {thing} is {value}.",
        "Who owns the {thing}?",
        "The owner of the {thing} is {value}.",
        "To whom does the {thing} belong?",
        PEOPLE,
    ),
    "holder": Relation(
        ("The {thing} is held by {value}.", "{value} holds the {thing}."),
        "The one who holds the {thing} is {value}.",
        "Who holds the {thing}?",
        "In the hands of {value} is the {thing}.",
        "By whom is the {thing} held?",
        PEOPLE,
    ),
    "material": Relation(
        ("The {thing} is made of {value}.", "The material of the {thing} is {value}."),
        "What the {thing} is made of is {value}.",
        "What is the {thing} made of?",
        "They made the {thing} of {value}.",
        "Of which material is the {thing}?",
        MATERIALS,
    ),
    "town": Relation(
        ("The {thing} comes from {value}.", "{value} is the home of the {thing}."),
        "Where the {thing} comes from is {value}.",
        "Where does the {thing} come from?",
        "From {value} comes the {thing}.",
        "What town is the home of the {thing}?",
        TOWNS,
    ),
    "price": Relation(
        ("The {thing} costs {value} coins.", "The price of the {thing} is {value} coins."),
        "What the {thing} costs is {value} coins.",
        "How many coins does the {thing} cost?",
        "For {value} coins the {thing} is sold.",
        "What is the price of the {thing} in coins?",
        PRICES,
    ),
    "left": Relation(
        ("The {value} is left of the {thing}.", "The {thing} is right of the {value}."),
        "What is left of the {thing} is the {value}.",
        "What is left of the {thing}?",
        "To the left of the {thing} is the {value}.",
        "Which thing is to the left of the {thing}?",
        THINGS,
    ),
    "above": Relation(
        ("The {value} is above the {thing}.", "The {thing} is below the {value}."),
        "What is above the {thing} is the {value}.",
        "What is above the {thing}?",
        "Over the {thing} is the {value}.",
        "Which thing is over the {thing}?",
        THINGS,
    ),
    "bigger": Relation(
        ("The {value} is bigger than the {thing}.", "The {thing} is smaller than the {value}."),
        "What is bigger than the {thing} is the {value}.",
        "What is bigger than the {thing}?",
        "The {value} is of greater size than the {thing}.",
        "Which thing is of greater size than the {thing}?",
        THINGS,
    ),
}
OWN = ("owner", "holder", "material", "town", "price")
"""The relations whose value is an attribute of the thing."""


class Fact(NamedTuple):
    """What a sentence states."""

    relation: str
    thing: str
    value: str


class Told(NamedTuple):
    """A fact's sentence, and where in it the value begins."""

    text: str
    start: int


def facts(scene: Scene) -> list[Fact]:
    """All that is true of a scene."""
    found = [Fact(name, thing.name, getattr(thing, name)) for thing in scene.things for name in OWN]
    for one, other in itertools.permutations(scene.things, 2):
        holds = {
            "left": one.place[0] < other.place[0],
            "above": one.place[1] < other.place[1],
            "bigger": (one.size, other.size) == ("large", "small"),
        }
        found += [Fact(name, other.name, one.name) for name, true in holds.items() if true]
    return found


def chosen(scene: Scene, draw: random.Random, count: int, relations: int = 3) -> list[Fact]:
    """At most so many facts of a few relations, in any order; of one relation and thing there is one."""
    own = draw.choice(OWN)  # of which every thing has one, so there are facts
    names = [own, *draw.sample([name for name in RELATIONS if name != own], relations - 1)]
    known = [fact for fact in facts(scene) if fact.relation in names]
    draw.shuffle(known)
    single = {(fact.relation, fact.thing): fact for fact in known}
    return list(single.values())[:count]


def tell(fact: Fact, draw: random.Random, anew: bool = False) -> Told:
    """A fact in one of its ways, or in the new one."""
    relation = RELATIONS[fact.relation]
    text = relation.told_anew if anew else draw.choice(relation.told)
    return Told(_filled(text, fact), len(_filled(text[: text.index("{value}")], fact)))


def passage(told: Sequence[Fact], draw: random.Random, anew: bool = False) -> tuple[str, list[int]]:
    """Facts one after the other, and where each one's value begins."""
    text, starts = "", []
    for fact in told:
        sentence = tell(fact, draw, anew)
        starts.append(len(text) + sentence.start)
        text += sentence.text + " "
    return text.strip(), starts


def recall(fact: Fact) -> str:
    """A fact with its value at the end."""
    return _filled(RELATIONS[fact.relation].recalled, fact)


def ask(fact: Fact, anew: bool = False) -> str:
    """The question that the value answers."""
    relation = RELATIONS[fact.relation]
    return _filled(relation.asked_anew if anew else relation.asked, fact)


def article(name: str) -> str:
    """A name with *a* or *an* before it."""
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def listed(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def _filled(text: str, fact: Fact) -> str:
    return text.format(thing=fact.thing, value=fact.value)
