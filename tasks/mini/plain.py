"""The world in plain statements, for pre-training: no question, no instruction, no caption, nothing of the shift.

A document states some facts of a scene and then recalls a few of them in other words, so that predicting a word means
looking it up. Some documents list values under letters and recall by letter; some say what everything is. A model that
is to look things up has to find out how: that takes thousands of long documents, and hundreds of short ones.
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
LONG = 0.7
"""Share of the long documents once all lessons are learned."""
NUMBERS = ("no", "one", "two", "three", "four", "five", "six")


def documents(seed: int = 0, lettered: float = 0.3, lessons: int = 0) -> Iterator[tuple[str, str]]:
    """Two parts of a document, without end: what is stated, and what is recalled; a share of them under letters.

    The first so many `lessons` are short documents, which give way to long ones over three times as many more.
    """
    for number, scene in enumerate(world.scenes("plain", seed)):
        draw = random.Random(f"plain {seed} {number}")
        kind = draw.random()
        learned = min(1.0, max(0.0, (number - lessons) / (3 * lessons))) if lessons else 1.0
        if lessons and draw.random() >= LONG * learned:
            yield _short(scene, draw, alike=draw.random() < learned)
        elif kind < lettered:
            yield _lettered(scene, draw)
        elif kind < lettered + 0.1:
            yield _knowledge(draw)
        else:
            yield _recalled(scene, draw)


def _short(scene: world.Scene, draw: random.Random, *, alike: bool) -> tuple[str, str]:
    """A few facts, all recalled: of different relations, so that each has one value of its kind, or of `alike` ones.

    Or a list, and which letter stands before what.
    """
    if draw.random() < 0.3:
        values = draw.sample(words.RELATIONS[draw.choice(words.OWN)].values, draw.randint(2, 4))
        letters = dict(zip(values, LETTERS, strict=False))
        listed = " ".join(f"({letter}) {value}" for value, letter in letters.items())
        again = draw.sample(values, len(values))
        return f"The list is {listed}.", " ".join(f"{value.capitalize()} is ({letters[value]})." for value in again)
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
    """Values under letters, some of them of no fact told; a fact's value is then its letter."""
    told = words.chosen(scene, draw, draw.randint(2, 5), relations=draw.choice((1, 2)))
    asked = draw.choice(told)
    others = [value for value in words.RELATIONS[asked.relation].values if value != asked.value]
    near = [fact.value for fact in told if fact.relation == asked.relation and fact.value != asked.value]
    options = [asked.value, *(near + draw.sample(others, 3))[: draw.randint(1, 3)]]
    options = list(dict.fromkeys(options))
    draw.shuffle(options)
    listed = " ".join(f"({letter}) {option}" for letter, option in zip(LETTERS, options, strict=False))
    letter = f"({LETTERS[options.index(asked.value)]})"
    recalled = words.recall(asked._replace(value=letter)).replace("the (", "(").replace(" coins", "")
    return " ".join(words.tell(fact, draw).text for fact in told), f"The list is {listed}. {recalled}"


def _knowledge(draw: random.Random) -> tuple[str, str]:
    """What some words are; and which of a list is of a class."""
    pairs = [(value, name) for name, values in CLASSES.items() for value in draw.sample(values, 2)]
    draw.shuffle(pairs)
    known = " ".join(f"{value.capitalize()} is {name}." for value, name in pairs[:5])
    value, name = draw.choice(pairs)
    others = [other for other, kind in pairs if kind != name]
    options = [value, *draw.sample(others, draw.randint(1, 3))]
    draw.shuffle(options)
    listed = " ".join(f"({letter}) {option}" for letter, option in zip(LETTERS, options, strict=False))
    return known, f"The list is {listed}. What is {name} is ({LETTERS[options.index(value)]})."
