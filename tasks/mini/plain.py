"""The world in plain statements, for pre-training: no question, no instruction, no caption, nothing of the shift.

A document states some facts of a scene and then recalls a few of them in other words, so that predicting a word means
looking it up. Some documents list values under letters and recall by letter; some say what everything is. A model that
is to look things up has to find out how: that takes thousands of long documents, and hundreds of short ones before.
"""

import random
from collections.abc import Iterator

from tasks.mini import words, world

LETTERS = "ABCDE"
CLASSES = {
    "a color": world.COLORS,
    "a kind of thing": world.KINDS,
    "a person": world.PEOPLE,
    "a town": world.TOWNS,
    "a material": world.MATERIALS,
    "a number": world.PRICES,
    "a pattern": world.PATTERNS,
    "a size": world.SIZES,
}
"""What everything is: the world's only knowledge that holds in every scene."""
LETTERED = tuple(f"({letter})" for letter in LETTERS)
ANY = (*LETTERED, *dict.fromkeys(value for values in CLASSES.values() for value in values))
"""Words that may stand before those of a list."""
LISTED, KNOWN = 0.15, 0.1
"""Shares of lists, and of what is known about words."""
LONG = 0.7
"""Share of the long documents once all lessons are learned."""
NUMBERS = ("no", "one", "two", "three", "four", "five", "six")


def documents(seed: int = 0, lettered: float = 0.3, lessons: int = 0) -> Iterator[tuple[str, str]]:
    """Two parts of a document, without end: what is stated, and what is recalled; a share of them under letters.

    With `lessons` the first so many are lists, of which some go on to come, and the next short documents, which give
    way to long ones over twice as many.
    """
    for number, scene in enumerate(world.scenes("plain", seed)):
        draw = random.Random(f"plain {seed} {number}")
        kind = draw.random()
        learned = min(1.0, max(0.0, number / lessons / 2 - 1)) if lessons else 1.0
        if lessons and (number < lessons or draw.random() < LISTED):
            yield _listed(draw)
        elif kind < KNOWN:
            yield _knowledge(draw)
        elif lessons and draw.random() >= LONG * learned:
            yield _short(scene, draw, alike=draw.random() < learned)
        elif kind < lettered + KNOWN:
            yield _lettered(scene, draw)
        else:
            yield _recalled(scene, draw)


def _listed(draw: random.Random) -> tuple[str, str]:
    """A list, and what stands before which of its words: a letter, or some other word."""
    listed = draw.sample(words.RELATIONS[draw.choice(words.OWN)].values, draw.randint(2, 4))
    before = LETTERED if draw.random() < 0.6 else draw.sample([word for word in ANY if word not in listed], 4)
    names = dict(zip(listed, before, strict=False))
    recalled = [f"The word {word} is {names[word]}." for word in draw.choices(listed, k=5)]
    return f"The list is {_list(names)}.", " ".join(recalled)


def _short(scene: world.Scene, draw: random.Random, *, alike: bool) -> tuple[str, str]:
    """A few facts, all recalled: of different relations, so that each has one value of its kind, or of `alike` ones."""
    if alike:
        told = words.chosen(scene, draw, draw.randint(2, 4), relations=draw.choice((1, 2)))
    else:
        single = {fact.relation: fact for fact in words.chosen(scene, draw, 12, relations=4)}
        told = list(single.values())[: draw.randint(1, 3)]
    again = draw.sample(told, len(told))
    return " ".join(words.tell(fact, draw).text for fact in told), " ".join(map(words.recall, again))


def _recalled(scene: world.Scene, draw: random.Random) -> tuple[str, str]:
    told = words.chosen(scene, draw, draw.randint(2, 6), relations=draw.choice((1, 1, 2, 3)))
    again = draw.sample(told, min(len(told), draw.randint(2, 4)))
    after = [words.recall(fact) if draw.random() < 0.7 else words.tell(fact, draw).text for fact in again]
    before = [words.tell(fact, draw).text for fact in told]
    if draw.random() < 0.3:
        names = [f"the {thing.name}" for thing in scene.things]
        before.append(f"There are {NUMBERS[len(names)]} things, {words.listed(names)}.")
        after.append(f"All the things are {words.listed(names)}, that is {NUMBERS[len(names)]}.")
    if draw.random() < 0.3:
        before += [f"The {thing.name} is {thing.size} and {thing.pattern}." for thing in scene.things[:2]]
        after += [
            f"What the {thing.name} looks like is {thing.size} and {thing.pattern}." for thing in scene.things[:2]
        ]
    draw.shuffle(before)
    draw.shuffle(after)
    return " ".join(before), " ".join(after)


def _lettered(scene: world.Scene, draw: random.Random) -> tuple[str, str]:
    """Values under letters, some of them of no fact told; the facts are recalled by their values' letters."""
    told = words.chosen(scene, draw, draw.randint(2, 5), relations=draw.choice((1, 2)))
    asked = draw.choice(told)
    values = words.RELATIONS[asked.relation].values
    alike = [fact for fact in told if fact.relation == asked.relation]
    options = list(dict.fromkeys(fact.value for fact in alike))[: len(LETTERS) - 1]
    options += draw.sample([value for value in values if value not in options], draw.randint(len(options) < 2, 2))
    options = options[: len(LETTERS)]
    draw.shuffle(options)
    letters = dict(zip(options, LETTERED, strict=False))
    again = draw.choices([fact for fact in alike if fact.value in letters], k=3)
    recalled = [words.recall(fact._replace(value=letters[fact.value])) for fact in again]
    short = " ".join(recalled).replace("the (", "(").replace(") coins", ")")
    return " ".join(words.tell(fact, draw).text for fact in told), f"The list is {_list(letters)}. {short}"


def _knowledge(draw: random.Random) -> tuple[str, str]:
    """What some words are; and which of a list is of which class."""
    pairs = [(value, name) for name, values in CLASSES.items() for value in draw.sample(values, 2)]
    draw.shuffle(pairs)
    known = " ".join(f"{value.capitalize()} is {name}." for value, name in pairs[:5])
    options = {name: value for value, name in draw.sample(pairs, 6)}
    names = draw.sample(sorted(options), min(len(options), draw.randint(2, 4)))
    letters = dict(zip(names, LETTERED, strict=False))
    recalled = " ".join(f"What is {name} is {letters[name]}." for name in draw.choices(names, k=3))
    return known, f"The list is {_list({options[name]: letters[name] for name in names})}. {recalled}"


def _list(letters: dict[str, str]) -> str:
    return " ".join(f"{letter} {word}" for word, letter in letters.items())
