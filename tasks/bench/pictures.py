"""What a frozen encoder sees of pictures: computed once, read from the disk by every further pass and run.

<folder>/<encoder, blocks and preprocessing>/<ab>/<sha256 of the picture's bytes>.npy     float32 (depths, width)

A feature is named by all that it is made from, so it is never stale, and two writers write the same; each file is put
in place by a rename. The encoder is loaded when a picture is unknown, and never before.
"""

import hashlib
import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision import transforms

from tasks.bench import cache, processes
from tasks.bench.config import Run
from tasks.bench.decode import any_colors
from tasks.bench.digests import digest
from tasks.bench.errors import InputError
from tasks.bench.progress import progress
from zeroinit import ImageCondition

Encode = Callable[[torch.Tensor], torch.Tensor]
"""(rows, 3, size, size) to (rows, depths, width)."""
PREPROCESSING = "the shorter side to size by bicubic interpolation, the center of it"
BATCH = 32


@dataclass(frozen=True)
class Encoder:
    """A frozen encoder: described, and not loaded yet.

    Attributes:
        name: its weights by name.
        sha256: of its weights.
        blocks: whose outputs are taken, counted from 1; as many as there are depths.
        width: of each feature.
        size: pixels along each side.
        mean: of each channel, for values from 0 to 1.
        deviation: likewise.
        load: gives the function itself, on a device.
    """

    name: str
    sha256: str
    blocks: tuple[int, ...]
    width: int
    size: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    load: Callable[[str], Encode]

    @property
    def space(self) -> str:
        """The name of all that a feature is made from, but the picture."""
        parts = [self.sha256, self.blocks, self.size, self.mean, self.deviation, PREPROCESSING]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def evenly(depths: int, blocks: int) -> tuple[int, ...]:
    """So many blocks in even steps up to the last.

    Raises:
        InputError: there are fewer.
    """
    if not 1 <= depths <= blocks:
        raise InputError(f"depths is {depths}, but the encoder has {blocks} blocks: give 1 to {blocks}")
    return tuple(round(blocks * (place + 1) / depths) for place in range(depths))


def takes_pictures(run: Run) -> bool:
    """Whether a run's method can be shown pictures, and may; a saved adapter only if it was trained on some."""
    if not getattr(run.task, "pictures", True):
        return False
    condition = getattr(run.method, "condition", ...)
    return condition is not ... and (run.choice.adapter is None or condition is not None)


class Pictures:
    """The features of picture files.

    Args:
        encoder: what looks at them.
        bottleneck: hidden width of the learned projection to the prompts; None: a single linear map.
        folder: where features are kept.
        device: where the encoder runs.
    """

    def __init__(self, encoder: Encoder, bottleneck: int | None, folder: Path, device: str = "cpu") -> None:
        self.encoder = encoder
        self.condition = ImageCondition(len(encoder.blocks), encoder.width, bottleneck)
        self.folder = folder / encoder.space
        self.device = device

    def conditioned(self, run: Run) -> Any:
        """A run's method, conditioned on these features.

        Raises:
            InputError: a saved adapter was trained on others.
        """
        method: Any = run.method
        if run.choice.adapter is None:
            return replace(method, condition=self.condition)
        if method.condition != self.condition:
            raise InputError(
                f"--adapter {run.choice.adapter} was trained on {method.condition}, but encoder and settings give "
                f"{self.condition}: set encoder, depths and bottleneck as they were"
            )
        return method

    def prepare(self, paths: Sequence[Path | None]) -> None:
        """Compute what is unknown, with a bar, and say how much is kept; several processes share the work.

        Raises:
            InputError: a picture is missing or damaged, or features cannot be written.
        """
        places = {self._place(path): path for path in paths if path is not None}
        unknown = processes.told(lambda: self._unknown(places))
        with processes.agreed():
            self._compute(unknown, quiet=False, shared=True)
        if processes.count() > 1:  # what another machine keeps on a disk of its own
            self._compute(self._unknown(places), quiet=True)
        kept = sum(place.stat().st_size for place in places) / 2**20
        told = f"{len(unknown)} of them computed" if unknown else "all of them known"
        print(
            f"features of {len(places)} pictures by {self.encoder.name}: {told}, {kept:.1f} MiB in {self.folder}",
            file=sys.stderr,
        )

    def features(self, paths: Sequence[Path | None]) -> tuple[torch.Tensor, torch.Tensor]:
        """(rows, depths, width) in float32, and (rows,): False, with zeros for features, where there is no picture.

        Raises:
            InputError: a picture is missing or damaged, or features cannot be written.
        """
        found = np.zeros((len(paths), self.condition.depths, self.condition.width), dtype=np.float32)
        for row, path in enumerate(paths):
            if path is not None:
                found[row] = self._feature(path)
        return torch.from_numpy(found), torch.tensor([path is not None for path in paths])

    def _feature(self, path: Path) -> NDArray[np.float32]:
        place = self._place(path)
        known = self._read(place)
        if known is None:
            self._compute([(place, path)], quiet=True)
            known = np.load(place)
        return known

    def _place(self, path: Path) -> Path:
        if not path.is_file():
            raise InputError(f"{path}: there is no such picture; give the pictures whole")
        name = digest(path)
        return self.folder / name[:2] / f"{name}.npy"

    def _unknown(self, places: Mapping[Path, Path]) -> list[tuple[Path, Path]]:
        """Of these places and their pictures, where nothing is kept yet."""
        return [(place, path) for place, path in places.items() if self._read(place) is None]

    def _read(self, place: Path) -> NDArray[np.float32] | None:
        """None where it is not there, or not whole."""
        try:
            found = np.load(place)
        except (OSError, ValueError, EOFError):
            return None
        return found if found.shape == (self.condition.depths, self.condition.width) else None

    @torch.no_grad()
    def _compute(self, unknown: Sequence[tuple[Path, Path]], *, quiet: bool, shared: bool = False) -> None:
        """Look at pictures, or at this process's share of them, and keep what was seen in their places."""
        if not unknown:
            return
        cuda = [torch.cuda.current_device()] if torch.device(self.device).type == "cuda" else []
        with torch.random.fork_rng(cuda):  # a model draws its weights before it reads them: prompts come after it
            encode = self.encoder.load(self.device)
        starts: Sequence[int] = range(0, len(unknown), BATCH)
        starts = processes.share(starts) if shared else starts
        for first in starts if quiet else progress(starts, "features"):
            part = unknown[first : first + BATCH]
            pixels = torch.stack([self._pixels(path) for _, path in part])
            for (place, _), seen in zip(part, encode(pixels.to(self.device)).float().cpu().numpy(), strict=True):
                cache.keep(place, _packed(seen))

    def _pixels(self, path: Path) -> torch.Tensor:
        e = self.encoder
        sized = transforms.Resize(e.size, transforms.InterpolationMode.BICUBIC)
        cut, numbers = transforms.CenterCrop(e.size), transforms.ToTensor()
        return transforms.Normalize(e.mean, e.deviation)(numbers(cut(sized(any_colors(path)))))


def _packed(feature: NDArray[np.float32]) -> bytes:
    file = io.BytesIO()
    np.save(file, feature)
    return file.getvalue()
