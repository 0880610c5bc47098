"""ScienceQA's problems from where they are kept: the official JSON, JSON lines, or the hub; pictures by their paths.

    problems.json                        {pid: {question, choices, answer, hint, image, grade, subject, topic, split}}
    pid_splits.json                      {split: [pid, ...]}
    captions.json                        {"captions": {pid: text}}, here or one folder up
    images/<split>/<pid>/image.png

JSON lines have the same keys and `pid`, may have `caption`, and name pictures by a path from their own folder, or
inside of an `images_<split>.tar` in it.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks._unpacked import unpacked
from tasks.bench import cache, decode, hub
from tasks.bench.documents import Entry, Tolerance, is_there, packed_or_not, read_json, read_lines
from tasks.bench.errors import InputError
from tasks.metrics.scienceqa_rules import GRADES, LETTERS, SUBJECTS, Labels

HUB = "derek-thomas/ScienceQA"
SPLITS = ("train", "val", "test")
SIZES = {"train": 12726, "val": 4241, "test": 4241}
SIZES |= {"trainval": 16967, "minitrain": 1272, "minival": 424, "minitest": 424}
"""The official sizes, as counted in pid_splits.json. The leaderboard's "mini" set has 1,000 and is none of these."""
FORMAT = "give ScienceQA's problems.json, or JSON lines with the same keys and pid"


@dataclass(frozen=True)
class Problem:
    """One multiple-choice question.

    Attributes:
        id: the official pid.
        split: `train`, `val` or `test`.
        question: what is asked.
        choices: the options, two to five.
        answer: which of them is right, from 0.
        hint: the textual context, often empty.
        caption: what a captioner said about the picture, where that is known.
        image: the picture, None where there is none.
        labels: what the columns of its results are made of.
    """

    id: str
    split: str
    question: str
    choices: tuple[str, ...]
    answer: int
    hint: str
    caption: str
    image: Path | None
    labels: Labels


@dataclass(frozen=True)
class _Beside:
    """What lies beside a file of problems, and whether the pictures among it are wanted."""

    folder: Path
    pictures: bool = False
    splits: Mapping[str, str] = field(default_factory=dict)
    captions: Mapping[str, str] = field(default_factory=dict)

    def picture(self, entry: Entry, split: str, name: str) -> Path | None:
        """Where the picture of a problem is; if it is not wanted, where it would be."""
        given = entry.text_if_any("image")
        if not given:
            return None
        inside = given if "/" in given else f"images/{split}/{name}/{given}"
        path = self.folder / inside
        if self.pictures and not is_there(path):
            archive = self.folder / f"images_{split}.tar"
            path = unpacked(archive) / inside if archive.is_file() else path
            if not is_there(path):
                raise InputError(f"{entry.place}: its picture {path} is not there; add it")
        return path


def problems(
    path: Path, skip_bad: int = 0, *, pictures: bool = False, captions: bool = False
) -> tuple[list[Problem], list[str]]:
    """The problems of a file, and what was wrong with the records left out.

    Args:
        path: the official JSON, or JSON lines, packed or not.
        skip_bad: how many bad records may be left out.
        pictures: whether each picture must be there, and whole where bad records may be left out.
        captions: whether to read captions.json.

    Raises:
        InputError: more records than that are not as the format says, or there is none.
    """
    bad = Tolerance(skip_bad)
    if ".jsonl" in path.suffixes:
        entries, splits = read_lines(path, bad), {}
    else:
        entries, splits = _official(read_json(path)), _splits(path.parent)
    beside = _Beside(path.parent, pictures, splits, _captions(path.parent) if captions else {})
    found: dict[str, Problem] = {}
    for entry in entries:
        with bad.record():
            problem = _problem(entry, beside)
            if problem.id in found:
                raise InputError(f"{entry.place}: the pid {problem.id!r} occurs twice; keep one of them")
            if pictures and skip_bad and problem.image:  # else a damaged one is refused when it is looked at
                decode.any_colors(problem.image)
            found[problem.id] = problem
    if not found:
        raise InputError(f"{path}: there is no usable problem; {FORMAT}")
    return list(found.values()), bad.left_out


def _official(document: Entry) -> Iterator[Entry]:
    names = document.keys()
    for name in names:
        value = document.value[name]
        yield Entry(value | {"pid": name} if isinstance(value, dict) else value, document.document, name)


def _problem(entry: Entry, beside: _Beside) -> Problem:
    entry.keys()  # refuses what is no object
    name = entry.text("pid")
    choices, answer = tuple(entry.texts("choices")), entry.integer("answer")
    if not 2 <= len(choices) <= len(LETTERS):
        raise InputError(f"{entry.place}: {len(choices)} options; give 2 to {len(LETTERS)}")
    if not 0 <= answer < len(choices):
        raise InputError(
            f"{entry.place}: the answer is {answer}; give the number of an option, 0 to {len(choices) - 1}"
        )
    question = entry.text("question")
    if not question.strip():
        raise InputError(f"{entry.place}: the question is empty; give its text")
    # A file that knows no splits is what is asked about.
    split = _one_of(entry, "split", SPLITS) or "test"
    if beside.splits.get(name, split) != split:
        raise InputError(
            f"{entry.place}: its split is {split!r}, but pid_splits.json says {beside.splits[name]!r}; correct one"
        )
    image = beside.picture(entry, split, name)
    hint = entry.text_if_any("hint")
    labels = Labels(
        _one_of(entry, "subject", SUBJECTS),
        _one_of(entry, "grade", GRADES),
        entry.text_if_any("topic") or None,
        text=bool(hint) if entry.has("hint") else None,
        image=image is not None if entry.has("image") else None,
    )
    caption = entry.text_if_any("caption") or beside.captions.get(name, "")
    return Problem(name, split, question, choices, answer, hint, caption, image, labels)


def _one_of(entry: Entry, key: str, known: Iterable[str]) -> str | None:
    value = entry.text_if_any(key) or None
    if value is not None and value not in known:
        raise InputError(f"{entry.place}: the {key} {value!r} is not known; give one of {', '.join(known)}")
    return value


def _splits(folder: Path) -> dict[str, str]:
    """The split of each pid, where pid_splits.json lies beside the problems; whole files have the official sizes."""
    path = packed_or_not("pid_splits.json", folder)
    if path is None:
        return {}
    document = read_json(path)
    lists = {name: document.texts(name) for name in SIZES if document.has(name)}
    if sum(len(lists.get(name, ())) for name in SPLITS) == sum(SIZES[name] for name in SPLITS):
        for name, pids in lists.items():
            if len(pids) != SIZES[name]:
                raise InputError(f"{path}: {name} has {len(pids)} problems, not {SIZES[name]}; give the official file")
    found: dict[str, str] = {}
    for name in SPLITS:
        for pid in lists.get(name, ()):
            if pid in found:
                raise InputError(f"{path}: the pid {pid!r} is in {found[pid]} and in {name}; keep it in one of them")
            found[pid] = name
    return found


def _captions(folder: Path) -> dict[str, str]:
    path = captions_file(folder)
    if path is None:
        return {}
    document = read_json(path)
    inner = Entry(document.value.get("captions") if document.has("captions") else None, str(path), "captions")
    names = inner.keys()
    return {name: inner.text(name) for name in names}


def captions_file(folder: Path) -> Path | None:
    """The captions of a folder's pictures, here or one folder up."""
    return packed_or_not("captions.json", folder, folder.parent)


def official(folder: Path, names: Iterable[str]) -> Path:
    """The first of these files in a data folder."""
    for name in names:
        if path := packed_or_not(name, folder, folder / "scienceqa"):
            return path
    raise InputError(f"--data {folder} holds no {' or '.join(names)}, packed or not: add it, or pass --eval FILE")


def shifted(folder: Path) -> Path | None:
    """Problems that differ from all that is trained on, which a data folder may hold besides."""
    return packed_or_not("problems_shift.json", folder)


def from_hub(*, pictures: bool = False) -> list[Problem]:
    """Every problem, from the local cache of `datasets` or the hub, which has no pids: they are split and row.

    Args:
        pictures: whether pictures are wanted; they are written to the cache.

    Raises:
        InputError: neither has them.
    """
    import datasets

    loaded: Any = hub.asked(
        lambda: datasets.load_dataset(HUB),
        "ScienceQA is neither given nor",
        "pass --data FOLDER, or --train FILE --eval FILE",
    )
    found = []
    for ours, theirs in zip(SPLITS, ("train", "validation", "test"), strict=True):
        rows = loaded[theirs].cast_column("image", datasets.Image(decode=False))
        for number, row in enumerate(rows):
            raw = row["image"] and row["image"]["bytes"]
            image = (str(_kept(raw)) if pictures else "image.png") if raw else None
            values = {**row, "pid": f"{ours}-{number}", "split": ours, "image": image}
            found.append(_problem(Entry(values, HUB, f"{theirs}[{number}]"), _Beside(Path())))
    return found


def _kept(raw: bytes) -> Path:
    """A picture's bytes as a file in the cache, named by their hash."""
    path = cache.root() / "scienceqa-pictures" / hashlib.sha256(raw).hexdigest()
    if not path.is_file():
        cache.keep(path, raw)
    return path
