"""A scene as 64 x 64 pixels: each thing in its place on the lattice, a little off its middle."""

import functools
import math
import random
from collections.abc import Sequence

from PIL import Image, ImageDraw

from tasks.mini.world import SIDE, Scene

PIXELS = 64
FINE = 4
"""Drawn so many times larger, and averaged."""
CANVAS = (PIXELS * FINE, PIXELS * FINE)
COLORS = {
    "red": (205, 40, 40),
    "green": (40, 150, 60),
    "blue": (45, 75, 205),
    "yellow": (235, 210, 50),
    "black": (25, 25, 25),
    "white": (250, 250, 250),
    "purple": (130, 50, 160),
    "orange": (240, 130, 30),
}
RADIUS = {"small": 6.0, "large": 9.5}
CELL = PIXELS / SIDE


def painted(scene: Scene) -> Image.Image:
    """The picture; grounds and small shifts follow from the scene."""
    draw = random.Random(f"picture {scene.key}")
    picture = ground(draw)
    for thing in scene.things:
        room = CELL / 2 - RADIUS[thing.size]
        middle = [CELL * (place + 0.5) + draw.uniform(-room, room) for place in thing.place]
        paint(picture, thing.kind, thing.color, thing.pattern, (middle[0], middle[1]), RADIUS[thing.size])
    return finished(picture)


def ground(draw: random.Random) -> Image.Image:
    """An empty picture of some pale gray."""
    shade = draw.randint(165, 205)
    return Image.new("RGB", CANVAS, tuple(shade + draw.randint(-12, 12) for _ in range(3)))


def finished(picture: Image.Image) -> Image.Image:
    """The picture in its own size."""
    return picture.resize((PIXELS, PIXELS), Image.Resampling.BOX)


def paint(
    picture: Image.Image,
    kind: str,
    color: str,
    pattern: str,
    middle: tuple[float, float],
    radius: float,
    angle: float = 0.0,
) -> None:
    """One thing, turned by an angle in radians."""
    side = round(FINE * radius) + 1
    mask = Image.new("L", (2 * side, 2 * side))
    pen = ImageDraw.Draw(mask)
    for outline, fill in _outlines(kind):
        turned = [_turned(point, angle) for point in outline]
        pen.polygon([(side + FINE * radius * x, side + FINE * radius * y) for x, y in turned], fill)
    corner = (round(FINE * middle[0]) - side, round(FINE * middle[1]) - side)
    picture.paste(_covered(COLORS[color], pattern).crop((0, 0, 2 * side, 2 * side)), corner, mask)


@functools.cache
def _covered(color: tuple[int, int, int], pattern: str) -> Image.Image:
    """A color with stripes or dots on it, lighter or darker."""
    size = CANVAS
    cover = Image.new("RGB", size, color)
    pen = ImageDraw.Draw(cover)
    light = sum(color) > 420
    mark = tuple((value + (0 if light else 255)) // 2 for value in color)
    step = 5 * FINE
    if pattern == "striped":
        for x in range(0, size[0], step):
            pen.rectangle((x, 0, x + 2 * FINE, size[1]), mark)
    elif pattern == "dotted":
        for x in range(0, size[0], step):
            for y in range(0, size[1], step):
                pen.ellipse((x, y, x + 2.6 * FINE, y + 2.6 * FINE), mark)
    return cover


Outline = Sequence[tuple[float, float]]


def _outlines(kind: str) -> list[tuple[Outline, int]]:
    """Polygons within a circle of radius 1, each put in (255) or taken out (0)."""
    return {
        "ball": [(_round(24), 255)],
        "ring": [(_round(24), 255), ([(0.5 * x, 0.5 * y) for x, y in _round(24)], 0)],
        "box": [(_block(0.8, 0.8), 255)],
        "bar": [(_block(1.0, 0.38), 255)],
        "cone": [([(0.0, -1.0), (0.95, 0.85), (-0.95, 0.85)], 255)],
        "gem": [([(0.0, -1.0), (0.75, 0.0), (0.0, 1.0), (-0.75, 0.0)], 255)],
        "cross": [(_block(1.0, 0.32), 255), (_block(0.32, 1.0), 255)],
        "dart": [([(0.0, -1.0), (0.55, 0.9), (0.0, 0.45), (-0.55, 0.9)], 255)],
        "star": [([(x * r, y * r) for (x, y), r in zip(_round(10), [1.0, 0.42] * 5, strict=True)], 255)],
    }[kind]


def _round(corners: int) -> list[tuple[float, float]]:
    turns = [2 * math.pi * place / corners - math.pi / 2 for place in range(corners)]
    return [(math.cos(turn), math.sin(turn)) for turn in turns]


def _block(x: float, y: float) -> Outline:
    return [(-x, -y), (x, -y), (x, y), (-x, y)]


def _turned(point: tuple[float, float], angle: float) -> tuple[float, float]:
    x, y = point
    return x * math.cos(angle) - y * math.sin(angle), x * math.sin(angle) + y * math.cos(angle)
