"""The ViT: it sees painted scenes, and says of each place of the lattice what stands there."""

import itertools
import math
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.backbones.vit import tiny
from tasks.mini import pictures, world
from tasks.mini.pretrain._loop import Loss, Recipe
from tasks.outputs.classes import Squash

ASPECTS = {"kind": world.KINDS, "color": world.COLORS, "pattern": world.PATTERNS, "size": world.SIZES}
"""What is asked of each place, and the answers; one more says that nothing is there."""

SKETCH, DRAWN = 4, 3.0
"""Squares along each side of the drawing in rough, and its weight."""
UNEVEN = 1.0
"""The most by which a picture is lit more at one edge than in its middle."""


class _Places(nn.Module):
    """A ViT whose class token says what stands in every place and redraws all in rough; each patch says its own place.

    Without the drawing it would overlook whatever has no name, shades of gray above all.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder = tiny()
        self.counts = [len(answers) + 1 for answers in ASPECTS.values()]
        self.whole = nn.Linear(self.encoder.embed_dim, world.SIDE**2 * sum(self.counts))
        self.near = nn.Linear(self.encoder.embed_dim, sum(self.counts))
        self.drawn = nn.Linear(self.encoder.embed_dim, 3 * SKETCH**2)
        patches = self.encoder.patch_embed.grid_size[0]
        across = [int((patch + 0.5) * world.SIDE / patches) for patch in range(patches)]
        self.owners = [row * world.SIDE + column for row in across for column in across]

    def loss(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """Over all places, patches and aspects, and over the drawing; `labels` are (pictures, places, aspects)."""
        tokens = self.encoder.forward_features(pixels)
        whole = self.whole(tokens[:, 0]).unflatten(1, (world.SIDE**2, -1))
        near = self.near(tokens[:, 1:])
        scores, wanted = torch.cat([whole, near], dim=1), torch.cat([labels, labels[:, self.owners]], dim=1)
        parts = zip(scores.split(self.counts, dim=2), wanted.unbind(2), strict=True)
        each = [F.cross_entropy(part.transpose(1, 2), right, reduction="none") for part, right in parts]
        places = torch.stack(each).sum(0)
        rough = F.adaptive_avg_pool2d(pixels, SKETCH).flatten(1)
        drawing = F.mse_loss(self.drawn(tokens[:, 0]), rough)
        return places[:, : world.SIDE**2].mean() + places[:, world.SIDE**2 :].mean() + DRAWN * drawing


def _scenes(seed: int, size: int) -> Iterator[Loss]:
    squash = Squash(pictures.PIXELS)
    scenes = world.scenes("plain", seed)
    while True:
        part = list(itertools.islice(scenes, size))
        pixels = torch.stack([torch.from_numpy(np.array(pictures.painted(scene))) for scene in part])
        light = torch.stack([_light(scene) for scene in part])
        lit = (pixels.permute(0, 3, 1, 2) * light[:, None]).clamp(0, 255).to(torch.uint8)
        shown = squash.normalized(lit)
        labels = torch.tensor([_labels(scene) for scene in part])
        yield lambda model, shown=shown, labels=labels: model.loss(shown, labels)


def _light(scene: world.Scene) -> Tensor:
    """(height, width): how bright each pixel is lit, from some side, and more or less evenly."""
    draw = random.Random(f"light {scene.key}")
    angle, strength = draw.uniform(0, 2 * math.pi), draw.uniform(0, UNEVEN)
    along = torch.linspace(-1, 1, pictures.PIXELS)
    return 1 + strength * (math.sin(angle) * along[:, None] + math.cos(angle) * along)


def _labels(scene: world.Scene) -> list[list[int]]:
    """The answer of every place and aspect; the last of each is that nothing is there."""
    found = [[len(answers) for answers in ASPECTS.values()] for _ in range(world.SIDE**2)]
    for thing in scene.things:
        column, row = thing.place
        found[row * world.SIDE + column] = [
            answers.index(getattr(thing, aspect)) for aspect, answers in ASPECTS.items()
        ]
    return found


def _save(model: _Places, folder: Path) -> None:
    save_file(model.encoder.state_dict(), folder / "model.safetensors")


RECIPE = Recipe(_Places, _scenes, _save, steps=5000, batch=16, rate=2e-3)
