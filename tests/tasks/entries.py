"""Every entry point that reads what a stranger wrote: each writes a hostile input into a folder, and reads it.

A function that returns accepted its input, and one that raises `Refused` refused it; whatever else it raises is a bug.
"""

import contextlib
import csv
import dataclasses
import functools
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

import zeroinit
from tasks import _judge, _vtab_files
from tasks import _unpacked as archives
from tasks.bench import decode
from tasks.bench import task as tasks
from tasks.bench.config import Choice, Run
from tasks.bench.errors import InputError
from tasks.bench.merge import merge
from tasks.bench.planned import Planned
from tasks.bench.report import belonging, gather, latex, published, report, terminal, wide
from tasks.bench.report.found import log, read
from tasks.bench.settings import parse_settings
from tasks.bench.store import Store
from tasks.bench.suite import plan, single
from tasks.bench.suite import read as read_suite
from tasks.bench.verify import verified
from tasks.metrics import caption_rules, ifeval_rules, pairwise, ptb
from tests.tasks import fabricated
from tests.tasks.mutations import (
    MARK,
    PLAIN,
    WORDS,
    Draw,
    archive,
    chance,
    changed,
    damaged,
    gzipped,
    json_file,
    json_lines,
    picture,
    spoilt,
    written,
    zipped,
)
from zeroinit.checkpoint import CheckpointError, saved_method

Entry = Callable[[Draw, Path], None]
ENTRIES: dict[str, Entry] = {}
Refused = (InputError, CheckpointError)


def entry(read: Entry) -> Entry:
    ENTRIES[read.__name__] = read
    return read


def prepare(name: str) -> None:
    """What an entry point needs once, made while nobody watches."""
    if name.startswith(("store", "published")):
        whole_store()
    elif name.startswith(("adapter", "peft")):
        for method in ADAPTERS:
            saved(method)
    elif name.startswith("ifeval"):
        ifeval_rules.checkers()


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def documented(draw: Draw, folder: Path, name: str, value: Any) -> Path:
    """A file of JSON, or of lines where the name says so; sometimes gzipped."""
    write = json_lines if name.endswith(".jsonl") else json_file
    data = write(draw, value)
    if chance(draw, 0.15):
        return put(folder / f"{name}.gz", gzipped(draw, data))
    return put(folder / name, data)


@functools.cache
def run_of(task: str, method: str, dataset: str | None, **settings: Any) -> Run:
    """A run to put files into; made of nothing but names."""
    file = Path(os.devnull)
    choice = Choice(task, tasks.get(task).backbone, method, dataset=dataset, device="cpu", eval=file)
    if task == "vtab":
        choice = dataclasses.replace(choice, eval=None)
    return single(choice, settings)


def loaded(draw: Draw, run: Run, **files: Path) -> None:
    """What a run does with its files: it names them by their content, and loads them."""
    given = {"train": None, "eval": None, "data": None, **files}
    choice = dataclasses.replace(run.choice, **given, skip_bad=draw.choice((0, 0, 1, 100)))
    run = dataclasses.replace(run, choice=choice)
    task = tasks.get(choice.task)
    assert run.cell
    data = task.load(run)
    json.dumps(data.notes)
    for part in (data.fit, data.tune, data.report, data.shift):
        for example in part:
            str(example.id).encode()


def method_of(draw: Draw) -> str:
    return draw.choice(("zero_init", "frozen", "majority"))


# SQuAD


def squad_document(version: str) -> dict[str, Any]:
    context = "Paris lies on the river Seine, and Lyon on the Rhône."
    asked = [("Where is Paris?", "the river Seine"), ("Who is on the Rhône?", "Lyon"), ("What lies?", "Paris")]
    answers = [[{"text": text, "answer_start": context.index(text)}] for _, text in asked]
    answers = answers if version == "v1.1" else [answers[0], [], answers[2]]
    more = [{} if version == "v1.1" else {"is_impossible": not each} for each in answers]
    data = [
        {
            "title": f"Title {title}",
            "paragraphs": [
                {
                    "context": context,
                    "qas": [
                        {"id": f"{title}-{place}", "question": asked[place][0], "answers": answers[place]} | more[place]
                        for place in range(3)
                    ],
                }
            ],
        }
        for title in range(3)
    ]
    return {"version": version, "data": data}


def _squad(draw: Draw, folder: Path, version: str) -> None:
    run = run_of("squad", method_of(draw), version)
    name = "eval" if chance(draw, 0.7) else "train"
    loaded(draw, run, **{name: documented(draw, folder, f"{name}.json", squad_document(version))})


@entry
def squad_v1(draw: Draw, folder: Path) -> None:
    _squad(draw, folder, "v1.1")


@entry
def squad_v2(draw: Draw, folder: Path) -> None:
    _squad(draw, folder, "v2.0")


@entry
def squad_score(draw: Draw, folder: Path) -> None:
    document = squad_document(draw.choice(("v1.1", "v2.0")))
    names = [asked["id"] for article in document["data"] for asked in article["paragraphs"][0]["qas"]]
    said = {name: draw.choice(("Paris", "Lyon", "", "the river Seine")) for name in names}
    predictions, references = either(draw, folder, said, document)
    more = {"na_prob_file": str(documented(draw, folder, "na.json", {name: draw.random() for name in names}))}
    scored(tasks.get("squad").score(predictions, references, **(more if chance(draw, 0.4) else {})))


def either(draw: Draw, folder: Path, said: Any, asked: Any, ends: tuple[str, str] = ("json", "json")) -> list[Path]:
    """Predictions and references, of which one at least is as it should be."""
    spoil = draw.randrange(2)
    found = []
    for place, (name, value) in enumerate((("predictions", said), ("references", asked))):
        if place == spoil:
            found.append(documented(draw, folder, f"{name}.{ends[place]}", value))
        else:
            text = "\n".join(map(written, value)) if ends[place] == "jsonl" else written(value)
            found.append(put(folder / f"{name}.{ends[place]}", text.encode()))
    return found


def scored(scores: Mapping[str, Any]) -> None:
    assert all(isinstance(value, int | float) for value in scores.values()), scores
    json.dumps(scores)


# ScienceQA


def problems(*, image: bool = True) -> dict[str, Any]:
    return {
        str(pid): {
            **{"question": "Which is red?", "choices": ["a rose", "grass", "snow"], "answer": pid % 3, "hint": "Look."},
            **{"image": "image.png" if image and pid % 2 else None, "grade": "grade3", "subject": "natural science"},
            **{"topic": "plants", "split": ("train", "val", "test")[pid % 3], "category": "x", "lecture": ""},
        }
        for pid in range(6)
    }


@entry
def scienceqa_folder(draw: Draw, folder: Path) -> None:
    known = problems()
    spoil = draw.randrange(4)
    found: dict[str, Any] = {
        "problems.json": known,
        "pid_splits.json": {name: [p for p in known if known[p]["split"] == name] for name in ("train", "val", "test")},
        "captions.json": {"captions": {pid: "a red thing" for pid in known}},
    }
    for place, (name, value) in enumerate(found.items()):
        if place == spoil:
            documented(draw, folder / "data", name, value)
        else:
            put(folder / "data" / name, written(value).encode())
    for pid, problem in known.items():
        place = folder / "data/images" / problem["split"] / pid / "image.png"
        if problem["image"]:
            linked(draw, place, picture(draw) if spoil == 3 else PLAIN)
    run = run_of("scienceqa", method_of(draw), draw.choice(("all", "image", "text")), captions=chance(draw, 0.5))
    loaded(draw, run, data=folder / "data")


def linked(draw: Draw, path: Path, data: bytes) -> None:
    """A picture; now and then a link instead, to itself, to a folder, or to what is no picture."""
    if not chance(draw, 0.05):
        put(path, data)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(draw.choice((path.name, ".", "/dev/null", "/etc/hostname", "../" * 20 + "etc/passwd", "absent")))


@entry
def scienceqa_lines(draw: Draw, folder: Path) -> None:
    lines = [{"pid": pid, **problem} for pid, problem in problems(image=False).items()]
    tar = chance(draw, 0.2)
    for line in lines if tar else lines[:2]:
        line["image"] = f"images/test/{line['pid']}/image.png"
    files = {f"images/test/{line['pid']}/image.png": PLAIN for line in lines}
    if tar:
        put(folder / "images_test.tar", archive(draw, files))
        lines = [{**line, "split": "test"} for line in lines]
    else:
        for name, data in files.items():
            put(folder / name, data)
    run = run_of("scienceqa", method_of(draw), draw.choice(("all", "image", "text")))
    loaded(draw, run, eval=documented(draw, folder, "problems.jsonl", lines))


@entry
def scienceqa_score(draw: Draw, folder: Path) -> None:
    known = problems()
    said = {pid: draw.choice(("The answer is (A).", "A", 1, -1, "B. grass")) for pid in known}
    said = {pid: answer for pid, answer in said.items() if known[pid]["split"] == "test" or chance(draw, 0.05)}
    predictions, references = either(draw, folder, said, known)
    dialect = draw.choice(("strict", "official", "llava"))
    scored(tasks.get("scienceqa").score(predictions, references, dialect=dialect))


# COCO Caption


def karpathy() -> dict[str, Any]:
    images = [
        {
            **{"filepath": "val2014", "filename": f"{n}.png", "cocoid": n, "imgid": n},
            **{"split": ("train", "val", "test", "restval")[n % 4]},
            "sentences": [{"raw": "A red cat.", "tokens": []}] * 2,
        }
        for n in range(8)
    ]
    return {"images": images, "dataset": "coco"}


def annotations(count: int = 8) -> dict[str, Any]:
    images = [{"id": n, "file_name": f"{n}.png", "height": 4} for n in range(count)]
    captions = [{"image_id": n, "id": n, "caption": f"A red cat on chair {n}."} for n in range(count)]
    return {"images": images, "annotations": captions}


def caption_lines() -> list[dict[str, Any]]:
    return [{"image_id": n, "file": f"{n}.png", "captions": ["A cat.", "A red cat."]} for n in range(8)]


def shelved(draw: Draw, folder: Path, *, spoil: bool) -> None:
    names = [f"val2014/{n}.png" for n in range(8)]
    if spoil and chance(draw, 0.3):
        put(folder / "images.tar", archive(draw, {name: picture(draw) for name in names}))
        return
    for name in names:
        linked(draw, folder / name, picture(draw) if spoil else PLAIN)


def _coco(draw: Draw, folder: Path, name: str, value: Any) -> None:
    run = run_of("coco_caption", draw.choice(("zero_init", "majority")), None)
    spoil = chance(draw, 0.1)
    shelved(draw, folder, spoil=spoil)
    path = put(folder / name, _valid(value)) if spoil else documented(draw, folder, name, value)
    if name == "dataset_coco.json" and chance(draw, 0.5):
        loaded(draw, run, data=folder)
    else:
        loaded(draw, run, eval=path, data=folder)


def _valid(value: Any) -> bytes:
    return ("\n".join(map(written, value)) if isinstance(value, list) else written(value)).encode()


@entry
def coco_karpathy(draw: Draw, folder: Path) -> None:
    _coco(draw, folder, "dataset_coco.json", karpathy())


@entry
def coco_annotations(draw: Draw, folder: Path) -> None:
    _coco(draw, folder, "captions_val2017.json", annotations())


@entry
def coco_lines(draw: Draw, folder: Path) -> None:
    _coco(draw, folder, "image_captions.jsonl", caption_lines())


@entry
def coco_score(draw: Draw, folder: Path) -> None:
    said = [{"image_id": n, "caption": f"A cat on a chair {n}."} for n in range(4)]
    predictions, references = either(draw, folder, said, annotations(4))
    counts = {"format": 1, "pictures": 9, "phrases": {"a cat": 4, "red": 2, "a": 9}}
    more = {"cider_df": str(documented(draw, folder, "df.json", counts))} if chance(draw, 0.4) else {}
    missing = draw.choice(("empty", "leave-out"))
    with stand_in():
        scored(tasks.get("coco_caption").score(predictions, references, missing=missing, **more))


@contextlib.contextmanager
def stand_in() -> Any:
    """The tokenizer is a Java program of others, which takes half a second to start: here words are words."""
    real = ptb.tokenize
    ptb.tokenize = lambda captions: [" ".join(re.findall(r"\w+", caption.lower())) for caption in captions]
    try:
        yield
    finally:
        ptb.tokenize = real


# VTAB


def pack() -> dict[str, list[str]]:
    lines = {name: [f"images/{name}/{n}.png {n % 10}" for n in range(3)] for name in ("train800", "val200", "test")}
    return {**lines, "train800val200": [*lines["train800"], *lines["val200"]]}


@entry
def vtab_pack(draw: Draw, folder: Path) -> None:
    place = folder / "data" / draw.choice(("cifar", "cifar100", "vtab-1k/cifar"))
    spoil = draw.choice((*pack(), "pictures", "shift"))
    for name, lines in pack().items():
        if name == spoil:
            lines = [draw.choice((line, line + draw.choice(WORDS), odd(draw, line))) for line in lines]
        text = "\n".join(lines) + "\n"
        put(place / f"{name}.txt", spoilt(draw, text) if name == spoil else text.encode())
    if spoil == "shift":
        put(place / "shift.txt", spoilt(draw, "images/test/0.png 1\n", 0.8))
    for name in ("train800", "val200", "test"):
        for n in range(3):
            linked(draw, place / f"images/{name}/{n}.png", picture(draw) if spoil == "pictures" else PLAIN)
    loaded(draw, run_of("vtab", method_of(draw), "cifar"), data=folder / "data")


def odd(draw: Draw, line: str) -> str:
    name, label = line.split(" ")
    word = draw.choice(WORDS)
    return draw.choice((f"{word} {label}", f"{name} {word}", f"{name} {10**20}", f"{name} ²"))


@entry
def vtab_folders(draw: Draw, folder: Path) -> None:
    for name in ("cat", "dog", *([draw.choice(WORDS)] if chance(draw, 0.5) else [])):
        with contextlib.suppress(OSError, ValueError):
            inside = folder / "data" / name.replace("/", "-").replace("..", "-").strip("~$. ")
            for n in range(4):
                end = draw.choice((".png", ".jpg", ".PNG", ".tiff", ".txt")) if chance(draw, 0.2) else ".png"
                linked(draw, inside / f"{n}{end}", picture(draw) if chance(draw, 0.1) else PLAIN + bytes(n))
    loaded(draw, run_of("vtab", method_of(draw), "cifar"), data=folder / "data")


@entry
def vtab_score(draw: Draw, folder: Path) -> None:
    lines = pack()["test"]
    other = [odd(draw, line) if chance(draw, 0.2) else line for line in lines][: draw.randrange(1, 4)]
    texts = ["\n".join(lines) + "\n", "\n".join(other) + "\n"]
    draw.shuffle(texts)
    spoil = draw.randrange(3)
    paths = [
        put(folder / f"{place}.txt", spoilt(draw, text, float(place == spoil))) for place, text in enumerate(texts)
    ]
    scored(tasks.get("vtab").score(*paths))


@entry
def vtab_zip(draw: Draw, folder: Path) -> None:
    files = {f"vtab-1k/cifar/{name}.txt": "\n".join(lines).encode() for name, lines in pack().items()}
    files |= {f"vtab-1k/cifar/images/test/{n}.png": PLAIN for n in range(3)}
    path = put(folder / "pack.zip", zipped(draw, files))
    _vtab_files.unzip(path, "cifar", folder / "cache/cifar")
    assert (folder / "cache/cifar/test.txt").is_file()


@entry
def tar_of_pictures(draw: Draw, folder: Path) -> None:
    files = {f"images/test/{n}/image.png": PLAIN for n in range(3)}
    place = archives.unpacked(put(folder / "images_test.tar", archive(draw, files)))
    assert place.is_dir()


@entry
def pictures(draw: Draw, folder: Path) -> None:
    path = folder / draw.choice(("a.png", "a.jpg", "a.tiff", "a.ppm", "a"))
    linked(draw, path, picture(draw))
    found = draw.choice((decode.rgb, decode.any_colors))(path)
    assert found.mode == "RGB"
    found.thumbnail((8, 8))


# Instructions


def alpaca() -> list[dict[str, Any]]:
    return [{"instruction": f"Say {n}.", "input": "" if n % 2 else "x", "output": f"{n}"} for n in range(6)]


CHECKS = (
    ("punctuation:no_comma", {}),
    ("length_constraints:number_words", {"num_words": 3, "relation": "at least"}),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "less than"}),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}),
    ("length_constraints:nth_paragraph_first_word", {"num_paragraphs": 2, "nth_paragraph": 1, "first_word": "a"}),
    ("keywords:existence", {"keywords": ["one", "two"]}),
    ("keywords:forbidden_words", {"forbidden_words": ["three"]}),
    ("keywords:frequency", {"keyword": "one", "frequency": 1, "relation": "at least"}),
    ("keywords:letter_frequency", {"letter": "o", "let_frequency": 1, "let_relation": "at least"}),
    ("detectable_content:number_placeholders", {"num_placeholders": 1}),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}),
    ("detectable_format:number_bullet_lists", {"num_bullets": 1}),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 1}),
    ("detectable_format:multiple_sections", {"section_spliter": "Part", "num_sections": 2}),
    ("detectable_format:json_format", {}),
    ("detectable_format:title", {}),
    ("detectable_format:constrained_response", {}),
    ("startend:end_checker", {"end_phrase": "bye"}),
    ("startend:quotation", {}),
    ("change_case:capital_word_frequency", {"capital_frequency": 1, "capital_relation": "at least"}),
    ("change_case:english_capital", {}),
    ("combination:two_responses", {}),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say"}),
    ("language:response_language", {"language": "de"}),
)
"""IFEval's types, with kwargs that fit."""
SAID = (
    *WORDS,
    *("one, two", "* one\n* two", "Part 1\na\nPart 2\nb", "<<Title>>\n\n[x]\n\nP.S. bye", '```json\n{"a": 1}\n```'),
)


def ifeval(draw: Draw) -> list[dict[str, Any]]:
    records = []
    for key in range(3):
        chosen = draw.sample(CHECKS, 2)
        kinds, kwargs = [kind for kind, _ in chosen], [dict(each) for _, each in chosen]
        records.append({"key": key, "prompt": f"Say {key}.", "instruction_id_list": kinds, "kwargs": kwargs})
    return records


@entry
def alpaca_json(draw: Draw, folder: Path) -> None:
    path = documented(draw, folder, "alpaca_data.json", alpaca())
    run = run_of("instruct", draw.choice(("zero_init", "frozen")), "alpaca", report_share=0.5)
    loaded(draw, run, **{draw.choice(("train", "eval")): path})


@entry
def alpaca_lines(draw: Draw, folder: Path) -> None:
    path = documented(draw, folder, "alpaca.jsonl", alpaca())
    loaded(draw, run_of("instruct", "zero_init", "alpaca", report_share=0.5), train=path)


@entry
def self_instruct(draw: Draw, folder: Path) -> None:
    lines = [{"id": f"task_{n}", "instruction": "Say.", "instances": [{"input": "", "output": "x"}]} for n in range(4)]
    loaded(draw, run_of("instruct", "frozen", "self_instruct"), eval=documented(draw, folder, "x.jsonl", lines))


@entry
def vicuna(draw: Draw, folder: Path) -> None:
    lines = [{"question_id": n, "category": "x", "turns": ["Why?"]} for n in range(4)]
    loaded(draw, run_of("instruct", "frozen", "vicuna"), eval=documented(draw, folder, "x.jsonl", lines))


@entry
def ifeval_lines(draw: Draw, folder: Path) -> None:
    path = documented(draw, folder, "x.jsonl", ifeval(draw))
    loaded(draw, run_of("instruct", "frozen", "ifeval"), eval=path)


@entry
def ifeval_score(draw: Draw, folder: Path) -> None:
    asked = ifeval(draw)
    said = [{"prompt": record["prompt"], "response": draw.choice(SAID)} for record in asked]
    scored(tasks.get("instruct").score(*either(draw, folder, said, asked, ("jsonl", "jsonl"))))


@entry
def judgments(draw: Draw, folder: Path) -> None:
    lines = [{"id": f"q{n}", "ours_first": "first", "ours_second": draw.choice(("tie", None))} for n in range(3)]
    json.dumps(pairwise.totals(_judge.read(documented(draw, folder, "x.jsonl", lines))))


@entry
def judged_answers(draw: Draw, folder: Path) -> None:
    asked = {str(n): "Why?" for n in range(3)}
    lines: list[dict[str, Any]] = [
        {"question_id": n, draw.choice(("text", "output", "prediction")): "Because."} for n in range(2)
    ]
    lines.append({"question_id": 2, "choices": [{"index": 0, "turns": ["Because."]}]})
    path = documented(draw, folder, "x.jsonl", lines)
    if chance(draw, 0.3):
        path = put(folder / "report.jsonl.gz", gzipped(draw, json_lines(draw, lines))).parent
    _judge._answers(path, asked)


@entry
def document_frequencies(draw: Draw, folder: Path) -> None:
    counts = {"format": 1, "pictures": 9, "phrases": {"a cat": 4, "red": 2, "a": 9}}
    found = caption_rules.Frequencies.read(documented(draw, folder, "df.json", counts))
    found.write(folder / "again.json")


# Suites and settings

SUITE = """tier = "mini"
[[grid]]
tasks = ["squad"]
datasets = ["v1.1"]
backbones = ["roberta"]
methods = ["prefix", "zero_init"]
seeds = [0, 1]
settings = [{ method.length = 2 }, {}]
[[grid]]
tasks = ["vtab"]
backbones = ["vit"]
methods = ["head"]
[[set]]
steps = 200
batch_size = 16
learning_rate = 1e-3
precision = "no"
grid = [1e-3, 3e-3]
[[set]]
when = { method = "prefix", seed = 1 }
method.length = 4
epochs = 1.0
dropout = 0.5
"""
TOML = (
    *("nan", "-inf", "inf", "1e400", "9" * 5000, "0x" + "f" * 5000, "-1", "0", "1", "true", '""', "[]", "{}", "[[]]"),
    *("1979-05-27", "1979-05-27T07:32:00Z", "07:32:00", '"../../x"', '"/etc/passwd"', '"a.py"', '"/dev/null"', "[{}]"),
    *('"\\u0000"', '"\\u001b[31m"', '"x" ', "'x'", '"""x"""', "[" * 3000 + "]" * 3000, "{a=" * 200 + "1" + "}" * 200),
    *("1_000", "+1", "0b1", "0o7", '"none"', '"declared"', '["a", 1]', "{ method = 1 }", "[-1]", "[1.5]", "[true]"),
    *('"zero_init"', '"squad"', '["full"]', '["oracle"]', '["x.py"]', "18446744073709551616", "4294967295", "1e-400"),
)
KEYS = (
    *(
        "tier",
        "grid",
        "set",
        "when",
        "tasks",
        "seeds",
        "x",
        "method.length",
        "a.b.c",
        '""',
        '"\\u0000"',
        "task.max_length",
    ),
    *("cider_df", "encoder", "tune_share"),
)


def toml(draw: Draw) -> bytes:
    """A suite, some of whose lines say something else."""
    lines = SUITE.splitlines()
    for _ in range(draw.randrange(4)):
        place = draw.randrange(len(lines))
        key = lines[place].partition(" = ")[0]
        way = draw.randrange(6)
        if way < 3:
            lines[place] = f"{key} = {draw.choice(TOML)}"
        elif way == 3:
            lines[place:place] = [f"{draw.choice(KEYS)} = {draw.choice(TOML)}"]
        elif way == 4:
            lines[place : place + 1] = draw.choice(([], [lines[place]] * 2, [lines[place].upper()], ["[[grid]]"]))
        else:
            lines[place] = lines[place].replace('"', draw.choice(("", "'", '"""')), draw.randrange(3))
    return spoilt(draw, "\n".join(lines) + "\n", 0.1)


@entry
def suites(draw: Draw, folder: Path) -> None:
    path = put(folder / "own.toml", toml(draw))
    suite = read_suite(str(path))
    runs = plan(suite, {"device": "cpu", "eval": Path(os.devnull)}, {})
    Planned("own", runs, Store(folder / "store")).overview()
    belonging.of(suite, [])


SETTINGS = {
    **{"steps": "20", "training.steps": "1e2", "epochs": "2", "batch_size": "8", "learning_rate": "3e-3"},
    **{"grid": "[1e-3, 3e-3]", "schedule": "cosine", "precision": "bf16", "fit_limit": "none", "threads": "1"},
    **{"clip": "2", "warmup": "0.5"},
    **{"max_length": "64", "doc_stride": "8", "n_best": "3", "task.tune_share": "0.2", "selection": '"last-epoch"'},
    **{"method.length": "4", "layers": "2", "gate": "identity", "per_head": "false", "method.dtype": "bfloat16"},
}
"""Settings of a run of SQuAD with zero_init, and values that fit."""


@entry
def settings(draw: Draw, folder: Path) -> None:
    pairs = []
    for _ in range(draw.randrange(1, 4)):
        key = draw.choice(list(SETTINGS))
        value = draw.choice((*TOML, *WORDS)) if chance(draw, 0.4) else SETTINGS[key]
        key = draw.choice((*KEYS, *WORDS)) if chance(draw, 0.1) else key
        pairs.append(f"{key}{draw.choice(('', '==')) if chance(draw, 0.05) else draw.choice(('=', ' = '))}{value}")
    if chance(draw, 0.1):
        parse_settings(pairs, "--only")
    choice = Choice("squad", "roberta", "zero_init", device="cpu", eval=Path(os.devnull))
    assert single(choice, parse_settings(pairs)).cell.startswith("squad-v1.1-roberta-")


# Stores


def _cells() -> list[Any]:
    lora = {"own": {"rank": 8, "alpha": 16}, "training": {"learning_rate": 1e-3}}
    gates = {"gates": [[0, {"layers.0.gate": [0.0, 0.0]}], [200, {"layers.0.gate": [0.1, -0.2]}]]}
    return [
        fabricated.cell("lora", 0, **lora),
        fabricated.cell("lora", 1, fabricated.squad_records([1.0, 1.0, 0.0, 0.5]), **lora),
        fabricated.cell("zero_init", 0, fabricated.squad_records([0.0, 1.0, 0.5, 0.5]), log=gates, notes=["a note"]),
        fabricated.cell("full", 0, fit=fabricated.squad_records([1.0, 0.0])),
        fabricated.broken("head"),
    ]


@functools.cache
def cells() -> dict[str, bytes]:
    """The files of a small store, whose cells have the names of their configurations."""
    import tempfile

    from tasks.bench.config import name_of

    with tempfile.TemporaryDirectory() as place:
        named = [dataclasses.replace(each, name=name_of(each.config)) for each in _cells()]
        store = Store(Path(place))
        for each in named:
            store.write(each)
        return {str(path.relative_to(place)): path.read_bytes() for path in store.root.rglob("*") if path.is_file()}


@functools.cache
def parsed(name: str) -> Any:
    """What a file of that store says: JSON, or lines of it."""
    import gzip

    data = cells()[name]
    if name.endswith(".gz"):
        return [json.loads(line) for line in gzip.decompress(data).splitlines()]
    return json.loads(data)


def stored(draw: Draw, root: Path, *, few: bool = False) -> Store:
    """That store, one or two of whose files are spoilt."""
    names = list(cells())
    spoil = set(draw.sample(names, draw.choice((0, 1, 1, 1, 2))))
    kept = {Path(name).parts[1] for name in (*draw.sample(names, 2), *spoil)} if few else None
    for name, data in cells().items():
        if kept is None or Path(name).parts[1] in kept:
            put(root / name, other_content(draw, name) if name in spoil else data)
    if spoil and chance(draw, 0.03):
        (root / min(spoil)).unlink()
    if chance(draw, 0.05):
        odd_cell(draw, root / "cells")
    return Store(root)


def other_content(draw: Draw, name: str) -> bytes:
    if chance(draw, 0.15):
        return damaged(draw, cells()[name])
    if name.endswith(".gz"):
        return gzipped(draw, json_lines(draw, parsed(name)))
    return json_file(draw, parsed(name))


def odd_cell(draw: Draw, folder: Path) -> None:
    """One more, which is a link or has another's content."""
    first = Path(next(iter(cells()))).parts[1]
    place = folder / draw.choice(("x", "..x", "a b", "\x1b[31m", "=1+1", MARK.replace("/", "-"), "link"))
    if place.name == "link":
        place.symlink_to(draw.choice(("/etc", ".", "absent", first)))
        return
    for name, data in cells().items():
        if first in name:
            put(place / Path(name).name, data)


@entry
def store_rows(draw: Draw, folder: Path) -> None:
    store = stored(draw, folder / "store")
    path = store.export()
    checked_table(path.read_text())
    for cell in read(store):
        log(store, cell)
        if cell.measured:
            store.records(cell.name, "report")
        store.state(cell.name)


def checked_table(text: str) -> None:
    """No field that a spreadsheet would compute."""
    for row in csv.reader(io.StringIO(text)):
        for field in row:
            if field.lstrip()[:1] in ("=", "+", "-", "@") and field:
                float(field)


@entry
def store_verify(draw: Draw, folder: Path) -> None:
    store = stored(draw, folder / "store")
    if chance(draw, 0.3):
        data = b"cell,split,metric\n=1,a,b\n"
        with contextlib.suppress(*Refused):
            data = store.export().read_bytes()
        put(store.root / "results.csv", damaged(draw, data))
    if not verified(store):
        raise InputError("discrepancies were told")


@entry
def store_merge(draw: Draw, folder: Path) -> None:
    one, other = stored(draw, folder / "one", few=True), stored(draw, folder / "other", few=True)
    target = one if chance(draw, 0.5) else Store(folder / "all")
    merge(target, [other] if target is one else [one, other])
    checked_table((target.root / "results.csv").read_text())


@entry
def store_plan(draw: Draw, folder: Path) -> None:
    store = stored(draw, folder / "store")
    choice = Choice("squad", "roberta", "lora", device="cpu", eval=Path(os.devnull))
    runs = [single(dataclasses.replace(choice, seed=seed), {}) for seed in (0, 1)]
    names = store.names()
    if names:  # a planned cell whose name one of the store's has
        shutil.copytree(store.cells / names[0], store.cells / runs[0].cell, dirs_exist_ok=True, symlinks=True)
    printable(Planned("own", runs, store).overview())


@entry
def store_tables(draw: Draw, folder: Path) -> None:
    store = stored(draw, folder / "store")
    suite = read_suite(str(fabricated.suite(folder / "own.toml")))
    own = belonging.of(suite, read(store))
    found = gather(own.cells, store, allow_mixed=chance(draw, 0.7))
    printable(terminal(found))
    checked_table(wide.text(found.tables))
    latex.document(found.sheets).encode()


def printable(text: str) -> None:
    assert all(line.isprintable() for line in text.split("\n")), ascii(text)


@entry
def store_report(draw: Draw, folder: Path) -> None:
    store = stored(draw, folder / "store", few=True)
    suite = read_suite(str(fabricated.suite(folder / "own.toml")))
    printable(report(suite, store, allow_mixed=chance(draw, 0.7), pictures=False))
    page = (store.root / "report.html").read_text()
    assert MARK not in page
    assert "<img src=x" not in page
    assert "\x1b" not in page
    checked_table((store.root / "own_wide.csv").read_text())


PUBLISHED = (
    "task,dataset,metric,value,method,source,weights,normalisation,selection,note\n"
    "squad,v1.1,f1,94.6,Full,a paper,roberta-large,,dev,\n"
    "squad,v1.1,exact_match,88.9,Full,a paper,roberta-large,,dev,\n"
    "vtab,cifar,accuracy,68.9,Full,a paper,in21k,imagenet,val,x\n"
)


@functools.cache
def whole_store() -> Any:
    import tempfile

    root = Path(tempfile.mkdtemp(prefix="zeroinit-fuzz-"))
    for name, data in cells().items():
        put(root / name, data)
    store = Store(root)
    found = gather([cell for cell in read(store) if cell.config["method"] != "head"], store, allow_mixed=True)
    shutil.rmtree(root)
    return found.tables


@entry
def published_numbers(draw: Draw, folder: Path) -> None:
    lines = [line.split(",") for line in PUBLISHED.splitlines()]
    for _ in range(draw.randrange(3)):
        line = draw.choice(lines)
        place = draw.randrange(len(line))
        line[place : place + draw.randrange(2)] = draw.choice(([], [draw.choice(WORDS).replace("\0", "")]))
        lines = [line for line in lines if line] or [["x"]]
    path = put(folder / "published.csv", spoilt(draw, "\n".join(map(",".join, lines)) + "\n"))
    numbers = published.read(path)
    tables = whole_store()
    sheets = [numbers.beside(table) for table in tables] + [numbers.over(tables[:1])]
    from tasks.bench.report import markdown

    shown = [sheet for sheet in sheets if sheet is not None]
    printable(markdown.document(shown))
    latex.document(shown)


# Adapters


@functools.cache
def host() -> Any:
    from tests.zeroinit.opened import llama

    torch.manual_seed(0)
    return llama(layers=2)


@functools.cache
def saved(method: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """An adapter's configuration and tensors, as `save` or PEFT writes them."""
    import tempfile

    from safetensors.torch import load_file

    from zeroinit import methods

    own = {"length": 3} if method in ("zero_init", "rand_init", "prefix", "prompt") else {}
    model = zeroinit.attach(host(), methods.get(method).from_fields(own))
    try:
        with tempfile.TemporaryDirectory() as place:
            zeroinit.save(model, place)
            config = json.loads(Path(place, "adapter_config.json").read_text())
            tensors = load_file(Path(place, "adapter_model.safetensors"))
            return config, {key: value.clone() for key, value in tensors.items()}
    finally:
        zeroinit.detach(model)


ADAPTERS = ("zero_init", "zero_init", "rand_init", "lora", "ia3", "prefix", "prompt", "adapter")
DTYPES = (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool, torch.uint8, torch.float8_e4m3fn)


def tensors_changed(draw: Draw, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Other numbers, types, shapes and names."""
    found = dict(tensors)
    for _ in range(draw.randrange(3)):
        if not found:
            break
        key = draw.choice(sorted(found))
        value, way = found[key], draw.randrange(8)
        if way == 0:
            found[key] = torch.full_like(value.float(), draw.choice((float("nan"), float("inf"), 1e38, 0.0, -1e-45)))
        elif way == 1:
            found[key] = value.to(draw.choice(DTYPES))
        elif way == 2:
            shape = draw.choice(((), (0,), (1,), (1, *value.shape), value.shape[:-1], value.shape[::-1], (2, 0, 3)))
            found[key] = torch.zeros(shape)
        elif way == 3:
            del found[key]
        elif way == 4:
            other = draw.choice(("", "x", f"{key}.x", f"layers.9.{key}", "layers.٣.prompt", "../x", *WORDS[8:20]))
            found[other] = value.clone()
        elif way == 5:
            other = draw.choice(sorted(found))
            found[key], found[other] = found[other], found[key]
        elif way == 6:
            other = draw.choice(("a.1.x.adaption_prompt", "b.٣.y.adaption_gate", "layers.1.gate", "head.weight"))
            found[other] = found.pop(key)
        else:
            wide = value.float() if value.element_size() == 1 else value  # in eight bits nothing can be multiplied
            found[key] = wide * draw.choice((1.0, 1e30, 0.0))
    return {key.encode("utf-8", "replace").decode(): value for key, value in found.items()}


def safe(draw: Draw, tensors: Mapping[str, torch.Tensor]) -> bytes:
    """As safetensors, now and then damaged, often in what its head says."""
    from safetensors.torch import save

    data = save({key: value.contiguous().clone() for key, value in tensors.items()})
    if not chance(draw, 0.3):
        return data
    size = int.from_bytes(data[:8], "little")
    if chance(draw, 0.5):
        return damaged(draw, data)
    head = changed(draw, json.loads(data[8 : 8 + size]))
    told = written(head).encode("utf-8", "surrogatepass")
    length = len(told) if chance(draw, 0.9) else draw.choice((0, 1, 2**40, 2**63, size))
    return length.to_bytes(8, "little") + told + data[8 + size :]


def foldered(draw: Draw, folder: Path, config: Any, tensors: Mapping[str, torch.Tensor]) -> Path:
    spoil = draw.randrange(2)
    put(folder / "adapter_config.json", json_file(draw, config) if spoil else written(config).encode())
    put(folder / "adapter_model.safetensors", safe(draw, tensors if spoil else tensors_changed(draw, tensors)))
    return folder


def planted(read: Callable[[Any], Any]) -> None:
    """Reads into the host, which is as before where that is refused; what was read is finite, and taken out again."""
    model = host()
    try:
        read(model)
        assert all(value.isfinite().all() for value in zeroinit.trainable(model).values())
    except Refused:
        assert "zeroinit" not in model._modules
        assert not [name for name, _ in model.named_parameters() if "zeroinit" in name or "lora" in name]
        raise
    finally:
        if "zeroinit" in model._modules:
            zeroinit.detach(model)


@entry
def adapters(draw: Draw, folder: Path) -> None:
    config, tensors = saved(draw.choice(ADAPTERS))
    place = foldered(draw, folder / "adapter", config, tensors)
    saved_method(place)
    planted(lambda model: zeroinit.load(model, place))


@entry
def adapter_flags(draw: Draw, folder: Path) -> None:
    """The same folder as `--adapter` takes it."""
    config, tensors = saved(draw.choice(("zero_init", "lora")))
    place = foldered(draw, folder / "adapter", config, tensors)
    choice = Choice("squad", "roberta", "zero_init", device="cpu", eval=Path(os.devnull), adapter=place)
    assert single(choice, {}).cell


@entry
def peft_folders(draw: Draw, folder: Path) -> None:
    config = {"peft_type": "ADAPTION_PROMPT", "adapter_len": 3, "adapter_layers": 2, "task_type": "CAUSAL_LM"}
    config |= {"target_modules": "self_attn", "base_model_name_or_path": "x", "inference_mode": True}
    tensors = {
        f"base_model.model.model.layers.{layer}.self_attn.adaption_{part}": value
        for layer in range(2)
        for part, value in (("prompt", torch.randn(1, 3, 32)), ("gate", torch.ones(1)))
    }
    place = foldered(draw, folder / "adapter", config, tensors)
    planted(lambda model: zeroinit.load(model, place))


class Payload:
    """What runs when it is unpickled by who trusts it."""

    def __init__(self, how: int, sentinel: str) -> None:
        self.how, self.sentinel = how, sentinel

    def __reduce__(self) -> tuple[Any, ...]:
        import subprocess

        return (
            (os.system, (f"touch {self.sentinel}",)),
            (subprocess.Popen, (["touch", self.sentinel],)),
            (exec, (f"open({self.sentinel!r}, 'w').close()",)),
            (eval, (f"open({self.sentinel!r}, 'w').close()",)),
            (Path.touch, (Path(self.sentinel),)),
            (shutil.rmtree, (self.sentinel,)),
        )[self.how]


ODD = (
    *(None, 1, "x", [1], torch.zeros(3).to_sparse(), torch.zeros(2, dtype=torch.complex64)),
    *(torch.nn.Parameter(torch.ones(1)), torch.ones(4, device="meta")),
)


@entry
def official_files(draw: Draw, folder: Path) -> None:
    import pickle

    state: dict[Any, Any] = {"adapter_query.weight": torch.ones(6, 32)}
    state |= {f"layers.{layer}.attention.gate": torch.ones(1, 4, 1, 1) for layer in range(2)}
    state = dict(tensors_changed(draw, state))
    way = draw.randrange(10)
    sentinel = str(folder.parent / "ran")
    if way == 0:
        state[draw.choice((*state, "x", 3))] = Payload(draw.randrange(6), sentinel)
    elif way == 1:
        state[draw.choice((*state, 3, None, "layers.00.attention.gate", "layers.٣.attention.gate"))] = draw.choice(ODD)
    wholes: Any = ({"model": state}, {"model": state, "epoch": 3}, state, [state], {"model": None})
    whole = draw.choice(wholes) if way < 4 else state
    target = io.BytesIO()
    if way == 5:
        pickle.dump(draw.choice((whole, Payload(draw.randrange(6), sentinel))), target)
    else:
        torch.save(whole, target, _use_new_zipfile_serialization=not chance(draw, 0.3))
    data = target.getvalue()
    path = put(folder / "adapter.pth", damaged(draw, data) if chance(draw, 0.4) else data)
    more = draw.choice(({}, {"length": 3}, {"layers": 2}, {"length": 3, "layers": 2}, {"length": 0}, {"layers": -1}))
    planted(lambda model: zeroinit.load_official(model, path, **more))
