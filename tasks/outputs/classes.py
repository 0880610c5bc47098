"""Classes: a picture in, one of a fixed number of classes out.

Pictures are squashed to the backbone's square, whatever their shape, as all published VTAB code does: no crop and no
augmentation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from PIL import Image

from tasks.bench import decode

Interpolation = Literal["bicubic", "bilinear"]
Normalisation = Literal["imagenet", "inception", "none"]

MOMENTS: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "inception": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
"""Mean and deviation of each channel, for values from 0 to 1."""


@dataclass(frozen=True)
class Squash:
    """How a backbone sees pictures; stands where language models have their tokenizer.

    Attributes:
        size: pixels along each side.
        interpolation: PIL's, with antialiasing, as torchvision's `Resize` does it for PIL pictures.
        normalisation: what is subtracted and divided by, from `MOMENTS`.
    """

    size: int
    interpolation: Interpolation = "bicubic"
    normalisation: Normalisation = "imagenet"

    def pixels(self, path: Path) -> torch.Tensor:
        """The picture as bytes, (3, size, size)."""
        filter = Image.Resampling[self.interpolation.upper()]
        squashed = decode.rgb(path).resize((self.size, self.size), filter)
        return torch.from_numpy(np.array(squashed)).permute(2, 0, 1).contiguous()

    def normalized(self, pixels: torch.Tensor) -> torch.Tensor:
        """Bytes (rows, 3, size, size) as the numbers that a backbone takes."""
        mean, deviation = (
            torch.tensor(moment, device=pixels.device).view(3, 1, 1) for moment in MOMENTS[self.normalisation]
        )
        return (pixels.float() / 255 - mean) / deviation


class Shown(Protocol):
    """A picture and what it shows."""

    @property
    def path(self) -> Path:
        """Its file."""
        ...

    @property
    def label(self) -> int:
        """Its class, counted from 0."""
        ...


@dataclass(eq=False)
class Row:
    """One picture; decoded when its batch is made, and kept as bytes where it will be seen again."""

    path: Path
    label: int
    keep: bool
    pixels: torch.Tensor | None = None

    def __len__(self) -> int:
        return 1  # all pictures are of one length


class ClassReader:
    """Reads pictures through a backbone's `Squash`."""

    pictures: Any = None
    kept = 4096
    """A fit split of at most so many pictures is kept decoded: 0.6 GB at 224 pixels."""

    def __init__(self, squash: Squash) -> None:
        self.squash = squash

    def fit(self, examples: Sequence[Shown]) -> list[Row]:
        """Pictures to learn from, many times."""
        return [Row(example.path, example.label, keep=len(examples) <= self.kept) for example in examples]

    def ask(self, examples: Sequence[Shown]) -> list[Row]:
        """Pictures to answer, once."""
        return [Row(example.path, example.label, keep=False) for example in examples]

    def collate(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """`pixels`, bytes of (rows, 3, size, size), and `labels`, (rows,)."""
        pixels = torch.stack([self._pixels(row) for row in rows])
        return {"pixels": pixels, "labels": torch.tensor([row.label for row in rows])}

    def loss(self, model: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The mean cross-entropy."""
        return torch.nn.functional.cross_entropy(self._logits(model, batch), batch["labels"])

    def weight(self, batch: Mapping[str, torch.Tensor]) -> int:
        """Its rows."""
        return len(batch["labels"])

    def outputs(self, model: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """The logits, (rows, classes)."""
        return [self._logits(model, batch)]

    def predict(self, model: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> list[int]:
        """The likeliest class of each row."""
        return self._logits(model, batch).argmax(1).tolist()

    def decode(self, examples: Sequence[Shown], rows: Sequence[Row], said: Sequence[Any]) -> list[int]:
        """A row is an example."""
        return list(said)

    def _logits(self, model: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return model(self.squash.normalized(batch["pixels"])).float()

    def _pixels(self, row: Row) -> torch.Tensor:
        pixels = self.squash.pixels(row.path) if row.pixels is None else row.pixels
        if row.keep:
            row.pixels = pixels
        return pixels
