"""SQuAD's questions from where they are kept: the official JSON, every span checked, the hub, or your own lines or CSV.

Your own have `question`, `context` and `answer`, which the context must hold (in v2.0 it may be empty: there is none),
and if you like `answer_start`, where the context holds it twice, `id`, and `title`, which keeps questions together.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tasks.bench import hub
from tasks.bench.documents import Entry, Tolerance, packed_or_not, read_json, read_records
from tasks.bench.errors import InputError

HUB = {"v1.1": "rajpurkar/squad", "v2.0": "rajpurkar/squad_v2"}
FILES = {"train": "train", "eval": "dev", "shift": "shift"}
"""How the names of a data folder's files begin, by role."""
FORMAT = "give a file in the official SQuAD format"


@dataclass(frozen=True)
class Question:
    """One question with the passage that may answer it.

    Attributes:
        id: its name in predictions.
        title: the article, which is never divided between splits.
        context: the passage.
        question: what is asked.
        answers: the accepted texts; none where there is no answer.
        starts: where each begins in the passage, in characters.
    """

    id: str
    title: str
    context: str
    question: str
    answers: tuple[str, ...]
    starts: tuple[int, ...]


def read(path: Path, dataset: str, skip_bad: int = 0) -> tuple[list[Question], list[str]]:
    """The questions of a file in the official format, or of lines or a table, and what was wrong with those left out.

    Raises:
        InputError: more than `skip_bad` records are not as the format says.
    """
    if not path.name.removesuffix(".gz").endswith((".jsonl", ".csv")):
        return questions(read_json(path), dataset, skip_bad)
    found: dict[str, Question] = {}
    bad = Tolerance(skip_bad)
    for entry in read_records(path, bad):
        with bad.record():
            question = _own(entry, dataset)
            if entry.tells("id"):
                _new(question.id, found, entry)
            elif question.id in found:
                question = _with_answers_of(found[question.id], question)
            found[question.id] = question
    if not found:
        raise InputError(f"{path}: there is no usable question; give question, context and answer in each record")
    return list(found.values()), bad.left_out


def _own(entry: Entry, dataset: str) -> Question:
    context, asked, answer = (entry.text(key) for key in ("context", "question", "answer"))
    name = entry.text("id") if entry.tells("id") else hashlib.sha256(f"{context}\0{asked}".encode()).hexdigest()[:16]
    title = entry.text("title") if entry.tells("title") else context
    if not answer and dataset == "v1.1":
        raise InputError(f"{entry.place}: there is no answer, which v1.1 does not know; pass --dataset v2.0")
    start = entry.count("answer_start") if entry.tells("answer_start") else context.find(answer)
    if answer and (start < 0 or context[start : start + len(answer)] != answer):
        raise InputError(f"{entry.place}: {answer[:40]!r} does not stand in its context there; correct it")
    texts, starts = ((answer,), (start,)) if answer else ((), ())
    return Question(name, title, context, asked.lstrip(), texts, starts)


def _with_answers_of(one: Question, other: Question) -> Question:
    """A question that was asked twice of a context: each record has an accepted answer of it."""
    found = dict.fromkeys(zip(one.answers + other.answers, one.starts + other.starts, strict=True))
    return replace(one, answers=tuple(text for text, _ in found), starts=tuple(start for _, start in found))


def questions(document: Entry, dataset: str, skip_bad: int = 0) -> tuple[list[Question], list[str]]:
    """The questions of a file, and what was wrong with the records left out.

    Raises:
        InputError: more than `skip_bad` records are not as the format says.
    """
    found: dict[str, Question] = {}
    bad = Tolerance(skip_bad)
    for number, article in enumerate(document.entries("data")):
        with bad.record():
            # Articles without a title must not become one group.
            title = article.text("title") if article.has("title") else f"article {number}"
            for paragraph in article.entries("paragraphs"):
                with bad.record():
                    context = paragraph.text("context")
                    for entry in paragraph.entries("qas"):
                        with bad.record():
                            question = _question(title, context, entry, dataset)
                            _new(question.id, found, entry)
                            found[question.id] = question
    if not found:
        raise InputError(f"{document.place}: there is no usable question; {FORMAT}")
    return list(found.values()), bad.left_out


def _question(title: str, context: str, entry: Entry, dataset: str) -> Question:
    texts, starts = [], []
    for answer in entry.entries("answers"):
        text, start = answer.text("text"), answer.integer("answer_start")
        if not text or start < 0 or context[start : start + len(text)] != text:
            raise InputError(f"{answer.place}: {text[:40]!r} is not at character {start} of its context; correct it")
        texts.append(text)
        starts.append(start)
    if not texts and dataset == "v1.1":
        raise InputError(f"{entry.place}: there is no answer, which v1.1 does not know; pass --dataset v2.0")
    asked = entry.text("question").lstrip()
    return Question(entry.text("id"), title, context, asked, tuple(texts), tuple(starts))


def golds(document: Entry) -> tuple[dict[str, list[str]], str]:
    """Accepted answers by id, and the version that the file shows itself to be; spans are not looked at."""
    found: dict[str, list[str]] = {}
    version = "v1.1"
    for article in document.entries("data"):
        for paragraph in article.entries("paragraphs"):
            for entry in paragraph.entries("qas"):
                name = entry.text("id")
                _new(name, found, entry)
                found[name] = [answer.text("text") for answer in entry.entries("answers")]
                if entry.has("is_impossible") or not found[name]:
                    version = "v2.0"
    if not found:
        raise InputError(f"{document.place}: there is no question; {FORMAT}")
    return found, version


def _new(name: str, known: Mapping[str, Any], entry: Entry) -> None:
    if name in known:
        raise InputError(f"{entry.place}: the id {name!r} occurs twice; give each question its own")


def from_hub(dataset: str) -> dict[str, list[Question]]:
    """Both splits by role, from the local cache of `datasets` or the hub.

    Raises:
        InputError: neither has them.
    """
    import datasets

    loaded: Any = hub.asked(
        lambda: datasets.load_dataset(HUB[dataset]),
        f"SQuAD {dataset} is neither given nor",
        "pass --train FILE --eval FILE, or --data FOLDER",
    )
    return {
        role: [_from_row(row) for row in loaded[split]] for role, split in (("train", "train"), ("eval", "validation"))
    }


def _from_row(row: Mapping[str, Any]) -> Question:
    texts, starts = tuple(row["answers"]["text"]), tuple(row["answers"]["answer_start"])
    return Question(row["id"], row["title"], row["context"], row["question"].lstrip(), texts, starts)


def official(folder: Path, dataset: str) -> dict[str, Path]:
    """The official files of a data folder by role, packed or not; and its `shift` file, which it may have too.

    Raises:
        InputError: one of the official ones is missing.
    """
    names = {role: f"{name}-{dataset}.json" for role, name in FILES.items()}
    found = {role: path for role, name in names.items() if (path := packed_or_not(name, folder, folder / "squad"))}
    for role in ("train", "eval"):
        if role not in found:
            name = names[role]
            raise InputError(f"--data {folder} holds no {name} or {name}.gz: add it, or name the file with --{role}")
    return found
