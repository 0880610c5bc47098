"""Small stand-ins for some of VTAB's sets, in the community's layout: real pixels from packages, and painted ones.

| stands in for | what it is | classes |
|---|---|---|
| cifar | tiles of scikit-learn's and matplotlib's three photographs: which one | 3 |
| svhn | scikit-learn's handwritten digits | 10 |
| eurosat | tiles of matplotlib's elevation map: which way the land falls | 8 |
| diabetic_retinopathy | the same map, lit from the north-west: how rugged the land is | 5 |
| clevr_count | 3 to 10 things of the world | 8 |
| clevr_dist | how near the nearest of a few things is, that is, how large | 6 |
| dsprites_loc | how far to the right a thing is | 16 |
| dsprites_ori | which way a dart points | 16 |

No tile, digit or scene is in two splits. Painted sets have a shift: pairs of color and kind that are seen nowhere else
(but for `dsprites_ori`, whose kind is always the dart: its shift is like its report split).
"""

import hashlib
import itertools
import math
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tasks.bench import cache
from tasks.bench.errors import InputError
from tasks.mini import pictures, world

SIZES = {"train800": 800, "val200": 200, "test": 400, "shift": 200}
"""Pictures of each split; a real set may have fewer to test on, and has no shift."""

Labeled = tuple[Image.Image, int]


class Set(NamedTuple):
    """The classes of a set, and its pictures: of `usual` or `shift`, the same in the same order every time."""

    classes: int
    labeled: Callable[[str], Iterator[Labeled]]


def pack(dataset: str) -> Path:
    """The folder of a set, made once into the cache."""
    return cache.made(f"mini-vtab-{dataset}-{world.VERSION}", lambda folder: write(folder, dataset))


def classes(dataset: str) -> int:
    """How many a stand-in has."""
    return _set(dataset).classes


def write(folder: Path, dataset: str, sizes: Mapping[str, int] = SIZES) -> None:
    """The split files and their pictures; as PNG, which loses nothing."""
    kind = _set(dataset)
    usual = kind.labeled("usual")
    parts = {name: list(itertools.islice(usual, size)) for name, size in sizes.items() if name != "shift"}
    parts["shift"] = list(itertools.islice(kind.labeled("shift"), sizes.get("shift", 0)))
    for name, part in parts.items():
        (folder / "images" / name).mkdir(parents=True)
        for number, (picture, _) in enumerate(part):
            picture.save(folder / "images" / name / f"{number:06d}.png")
    parts["train800val200"] = parts["train800"] + parts["val200"]
    both = folder / "images" / "train800val200"
    shutil.copytree(folder / "images" / "train800", both)
    for number in range(len(parts["val200"])):
        target = both / f"{len(parts['train800']) + number:06d}.png"
        shutil.copyfile(folder / "images" / "val200" / f"{number:06d}.png", target)
    for name, part in parts.items():
        lines = [f"images/{name}/{number:06d}.png {label}\n" for number, (_, label) in enumerate(part)]
        if lines:
            (folder / f"{name}.txt").write_text("".join(lines), encoding="utf-8")


def _set(dataset: str) -> Set:
    if dataset not in SETS:
        raise InputError(
            f"the mini world has nothing that stands in for {dataset}: choose one of {', '.join(SETS)}, or give --data"
        )
    return SETS[dataset]


# Real pixels


def _real(found: Callable[[], Iterator[Labeled]]) -> Callable[[str], Iterator[Labeled]]:
    """Each picture once, in an order that their pixels say; there is no shift of them."""

    def labeled(stream: str) -> Iterator[Labeled]:
        if stream == "usual":
            known = {hashlib.sha256(picture.tobytes()).hexdigest(): (picture, label) for picture, label in found()}
            yield from (known[name] for name in sorted(known))

    return labeled


def _digits() -> Iterator[Labeled]:
    from sklearn.datasets import load_digits

    found: Any = load_digits()
    for pixels, label in zip(found.images, found.target, strict=True):
        yield _gray(pixels / 16), int(label)


def _photographs() -> Iterator[Labeled]:
    from sklearn.datasets import load_sample_image

    with _sample("grace_hopper.jpg") as file:
        hopper = np.array(Image.open(file).convert("RGB"))
    for label, pixels in enumerate((load_sample_image("china.jpg"), load_sample_image("flower.jpg"), hopper)):
        for tile in _tiles(np.asarray(pixels), 24):
            yield Image.fromarray(tile), label


def _slopes() -> Iterator[Labeled]:
    """The tile's own lowest point is black, its highest white; the class counts eighths of a turn from the east."""
    for tile in _elevations():
        down, right = (-float(slope.mean()) for slope in np.gradient(tile))
        eighth = round(math.atan2(-down, right) / (math.pi / 4)) % 8
        yield _gray((tile - tile.min()) / max(1.0, float(np.ptp(tile)))), eighth


def _relief() -> Iterator[Labeled]:
    """Fifths of the range of heights within a tile, over all tiles."""
    tiles = list(_elevations())
    ranges = [float(np.ptp(tile)) for tile in tiles]
    bounds = [sorted(ranges)[len(ranges) * fifth // 5] for fifth in range(1, 5)]
    for tile, height in zip(tiles, ranges, strict=True):
        down, right = np.gradient(tile)
        light = 0.5 + (down + right) / 100  # per cell of some 90 meters
        yield _gray(np.clip(light, 0, 1)), sum(height >= bound for bound in bounds)


def _elevations() -> Iterator[NDArray[np.float64]]:
    yield from _tiles(np.asarray(_sample("jacksboro_fault_dem.npz")["elevation"], dtype=np.float64), 10)


def _sample(name: str) -> Any:
    """What matplotlib carries to draw in its examples."""
    from matplotlib.cbook import get_sample_data

    return get_sample_data(name)


def _tiles(map: NDArray[Any], side: int) -> Iterator[NDArray[Any]]:
    """Squares side by side."""
    for top in range(0, map.shape[0] - side + 1, side):
        for left in range(0, map.shape[1] - side + 1, side):
            yield map[top : top + side, left : left + side]


def _gray(values: NDArray[Any]) -> Image.Image:
    """Values from 0 to 1, as 32 x 32 pixels."""
    picture = Image.fromarray((255 * values).round().astype(np.uint8))
    return picture.resize((32, 32), Image.Resampling.BICUBIC).convert("RGB")


# Painted ones


Looks = Callable[[], Any]
"""Draws the color, the kind and the pattern of one more thing."""


def _painted(
    name: str, paint: Callable[[Image.Image, random.Random, Looks], int]
) -> Callable[[str], Iterator[Labeled]]:
    """A canvas for each number; `paint` puts things on it and says the class."""

    def labeled(stream: str) -> Iterator[Labeled]:
        pairs = [(c, k) for c in world.COLORS for k in world.KINDS if world.held_out(c, k) == (stream == "shift")]
        for number in itertools.count():
            draw = random.Random(f"vtab {name} {stream} {number}")

            def looks(draw: random.Random = draw) -> dict[str, str]:
                color, kind = draw.choice(pairs)
                return {"color": color, "kind": kind, "pattern": draw.choice(world.PATTERNS)}

            picture = pictures.ground(draw)
            label = paint(picture, draw, looks)
            yield pictures.finished(picture), label

    return labeled


def _count(picture: Image.Image, draw: random.Random, looks: Looks) -> int:
    label = draw.randrange(8)
    for column, row in draw.sample([(c, r) for c in range(4) for r in range(4)], label + 3):
        middle = (16 * column + 8 + draw.uniform(-2, 2), 16 * row + 8 + draw.uniform(-2, 2))
        pictures.paint(picture, middle=middle, radius=draw.uniform(4.5, 6.5), **looks())
    return label


def _distance(picture: Image.Image, draw: random.Random, looks: Looks) -> int:
    label = draw.randrange(6)
    radii = [4 + 1.8 * (5 - label) + draw.uniform(0, 1.2)]
    radii += [draw.uniform(3.5, radii[0]) for _ in range(draw.randrange(3))]
    for radius in reversed(radii):
        middle = (draw.uniform(radius, 64 - radius), draw.uniform(radius, 64 - radius))
        pictures.paint(picture, middle=middle, radius=radius, **looks())
    return label


def _place(picture: Image.Image, draw: random.Random, looks: Looks) -> int:
    label = draw.randrange(16)
    across = 8 + 3 * label + draw.uniform(0.3, 2.7)
    pictures.paint(picture, middle=(across, draw.uniform(8, 56)), radius=draw.uniform(4.5, 8), **looks())
    return label


def _turn(picture: Image.Image, draw: random.Random, looks: Looks) -> int:
    label = draw.randrange(16)
    look = looks() | {"kind": "dart"}
    angle = (label + draw.uniform(-0.3, 0.3)) * math.pi / 8
    middle = (draw.uniform(24, 40), draw.uniform(24, 40))
    pictures.paint(picture, middle=middle, radius=draw.uniform(11, 18), angle=angle, **look)
    return label


SETS: Mapping[str, Set] = {
    "cifar": Set(3, _real(_photographs)),
    "svhn": Set(10, _real(_digits)),
    "eurosat": Set(8, _real(_slopes)),
    "diabetic_retinopathy": Set(5, _real(_relief)),
    "clevr_count": Set(8, _painted("count", _count)),
    "clevr_dist": Set(6, _painted("distance", _distance)),
    "dsprites_loc": Set(16, _painted("place", _place)),
    "dsprites_ori": Set(16, _painted("turn", _turn)),
}
"""By the name of the set that each stands in for."""
