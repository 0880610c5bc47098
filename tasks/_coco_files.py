"""COCO's pictures and captions from where they are kept: Karpathy's file, the official annotations, lines, the hub.

    dataset_coco.json               Karpathy's: {"images": [{filepath, filename, cocoid, split, sentences: [{raw}]}]}
    captions_val2017.json           official: {"images": [{id, file_name}], "annotations": [{image_id, caption}]}
    image_captions.jsonl            lines: {image_id, file, captions}
    train2014/ val2017/ images/ …   the pictures, in the folder of `--data` (else of the file), or in an `images.tar`

Any of the files may be gzipped. Results and references of `score` are in the official formats.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks._unpacked import unpacked
from tasks.bench import decode, hub
from tasks.bench.documents import Entry, Tolerance, is_folder, is_there, packed_or_not, read_json, read_lines
from tasks.bench.errors import InputError

HUB = "yerevann/coco-karpathy"
FILES = (
    {"karpathy": "dataset_coco.json"},
    {"pictures": "image_captions.jsonl"},
    {"train": "captions_train2017.json", "eval": "captions_val2017.json"},
    {"train": "captions_train2014.json", "eval": "captions_val2014.json"},
)
"""What a data folder may hold, by role; the first that is whole is taken."""
SHIFT = "captions_shift.json"
"""What a data folder may hold besides: official annotations of pictures that differ from all that is trained on."""
KARPATHY = {"fit": ("train", "restval"), "val": ("val",), "test": ("test",)}
"""Karpathy's splits."""
SIZES = {"fit": 113_287, "report": 5_000}
"""Their pictures; val has as many as test."""
FORMAT = "give Karpathy's dataset_coco.json, official COCO annotations, or JSON lines in a file named .jsonl"


@dataclass(frozen=True)
class Picture:
    """A picture and what people wrote under it.

    Attributes:
        id: COCO's.
        file: the picture.
        captions: at least one.
        split: Karpathy's; empty in other files.
    """

    id: int
    file: Path
    captions: tuple[str, ...]
    split: str = ""


def official(folder: Path) -> dict[str, Path]:
    """The files of a data folder, by role; none where there are none."""
    for wanted in FILES:
        found = {role: path for role, name in wanted.items() if (path := _official(folder, name))}
        if len(found) == len(wanted):
            shift = _official(folder, SHIFT)
            return found | ({"shift": shift} if shift else {})
    return {}


def _official(folder: Path, name: str) -> Path | None:
    return packed_or_not(name, folder, folder / "annotations")


def pictures(path: Path, folder: Path | None = None, skip_bad: int = 0) -> tuple[list[Picture], list[str]]:
    """The pictures of a file in any of the formats, and what was wrong with the records left out.

    Args:
        path: the file.
        folder: holds the pictures; None: the file's own.
        skip_bad: leave so many records out at most, pictures that cannot be decoded among them.

    Raises:
        InputError: more records are bad, or there is none.
    """
    bad = Tolerance(skip_bad)
    shelf = Shelf(folder or path.parent)
    found: dict[int, Picture] = {}
    for entry, read in _records(path, bad):
        with bad.record():
            picture = read(entry, shelf)
            if picture.id in found:
                raise InputError(f"{entry.place}: the picture {picture.id} occurs twice; keep one record of it")
            if skip_bad:  # else a damaged one is refused when it is looked at
                decode.any_colors(picture.file)
            found[picture.id] = picture
    if not found:
        raise InputError(f"{path}: there is no usable picture; {FORMAT}")
    return list(found.values()), bad.left_out


def _records(path: Path, bad: Tolerance) -> Iterator[tuple[Entry, Any]]:
    """Each record, and how to read it."""
    if path.name.removesuffix(".gz").endswith(".jsonl"):
        yield from ((entry, _of_line) for entry in read_lines(path, bad))
        return
    document = read_json(path)
    if document.has("annotations"):
        captions = _captions(document)
        for entry in document.entries("images"):
            yield entry, lambda entry, shelf: _of_official(entry, shelf, captions)
    elif document.has("images"):
        yield from ((entry, _of_karpathy) for entry in document.entries("images"))
    else:
        raise InputError(f"{path}: there are no 'images'; {FORMAT}")


def _captions(document: Entry) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for entry in document.entries("annotations"):
        found.setdefault(entry.integer("image_id"), []).append(entry.text("caption"))
    return found


def _usable(entry: Entry, captions: Sequence[str]) -> tuple[str, ...]:
    if not captions or not all(caption.strip() for caption in captions):
        raise InputError(f"{entry.place}: there is no caption of this picture, or an empty one; give captions")
    return tuple(captions)


class Shelf:
    """Where pictures lie: a folder, the folders in it and in its `images`, and its `images.tar`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        tar = folder / "images.tar"
        tops = [folder, folder / "images", *([unpacked(tar)] if is_there(tar) else [])]
        inside = [path for top in tops if is_folder(top) for path in sorted(top.iterdir()) if is_folder(path)]
        self.roots = [*tops, *inside]

    def find(self, entry: Entry, *names: str) -> Path:
        """The first of these files that is there.

        Raises:
            InputError: none is.
        """
        for root in self.roots:
            for name in names:
                if is_there(root / name):
                    return root / name
        raise InputError(
            f"{entry.place}: there is no picture {names[0]} in {self.folder}; name the folder of pictures with --data"
        )


def _of_line(entry: Entry, shelf: Shelf) -> Picture:
    captions = _usable(entry, entry.texts("captions"))
    return Picture(entry.integer("image_id"), shelf.find(entry, entry.text("file")), captions)


def _of_official(entry: Entry, shelf: Shelf, captions: Mapping[int, list[str]]) -> Picture:
    name = entry.integer("id")
    return Picture(name, shelf.find(entry, entry.text("file_name")), _usable(entry, captions.get(name, ())))


def _of_karpathy(entry: Entry, shelf: Shelf) -> Picture:
    name, split = entry.text("filename"), entry.text("split")
    known = [split for splits in KARPATHY.values() for split in splits]
    if split not in known:
        raise InputError(f"{entry.place}: 'split' is {split!r}; give one of {', '.join(known)}")
    captions = _usable(entry, [sentence.text("raw") for sentence in entry.entries("sentences")])
    names = [f"{entry.text('filepath')}/{name}"] if entry.has("filepath") else []
    return Picture(entry.integer("cocoid"), shelf.find(entry, *names, name), captions, split)


def from_hub(folder: Path) -> list[Picture]:
    """Karpathy's file from the local cache of `datasets` or the hub; the pictures are those of a folder.

    Raises:
        InputError: neither has it, or a picture is missing.
    """
    import datasets

    names = ", ".join(name for wanted in FILES for name in wanted.values())
    wanting = f"--data {folder} holds none of {names}, and Karpathy's splits are not"
    loaded: Any = hub.asked(
        lambda: datasets.load_dataset(HUB), wanting, "add one of these files, or pass --train FILE --eval FILE"
    )
    shelf = Shelf(folder)
    found = []
    for part in loaded:
        for number, row in enumerate(loaded[part]):
            sentences = [{"raw": each} if isinstance(each, str) else each for each in row["sentences"]]
            found.append(_of_karpathy(Entry({**row, "sentences": sentences}, HUB, f"{part}[{number}]"), shelf))
    return found


def references(document: Entry) -> dict[int, list[str]]:
    """The captions of each picture of official annotations; the pictures themselves are not looked at.

    Raises:
        InputError: there is none, or a picture has none.
    """
    found = _captions(document)
    if document.has("images"):
        for entry in document.entries("images"):
            if entry.integer("id") not in found:
                raise InputError(f"{entry.place}: no annotation has a caption for this picture; add one")
    if not found:
        raise InputError(f"{document.place}: there is no annotation; give official COCO annotations")
    return found


def results(document: Entry, known: Mapping[int, Any], where: Path) -> dict[int, str]:
    """The captions of the official list of results, each for a known picture.

    Raises:
        InputError: a picture is unknown, or has two captions.
    """
    if not isinstance(document.value, list):
        raise InputError(f'{document.place}: this is no list; give [{{"image_id": 1, "caption": "..."}}, ...]')
    found: dict[int, str] = {}
    for number, value in enumerate(document.value):
        entry = Entry(value, document.document, f"[{number}]")
        name = entry.integer("image_id")
        if name not in known:
            raise InputError(f"{entry.place}: the picture {name} is not in {where}; leave it out")
        if name in found:
            raise InputError(f"{entry.place}: the picture {name} has a caption already; give one each")
        found[name] = entry.text("caption")
    return found
