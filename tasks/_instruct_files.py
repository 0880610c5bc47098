"""Instructions from where they are kept: Alpaca's JSON or lines, and the questions of three benchmarks, or the hub.

alpaca         {"instruction", "input", "output"}: a JSON list, lines, or CSV; `input` may be empty or missing
self_instruct  lines {"id", "instruction", "instances": [{"input", "output"}]}: the first instance
ifeval         lines {"key", "prompt", "instruction_id_list", "kwargs"}
vicuna         lines {"question_id", "turns": [question]}
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tasks.bench import hub
from tasks.bench.documents import Entry, Tolerance, read_records
from tasks.bench.errors import InputError
from tasks.metrics.ifeval_rules import Check

SIZES = {"alpaca": 52_002, "self_instruct": 252, "ifeval": 541, "vicuna": 80}
"""The official sizes, as counted in the files."""
HUB = {"alpaca": "tatsu-lab/alpaca", "ifeval": "google/IFEval"}
FILES = {
    "alpaca": ("alpaca_data.json", "alpaca_data.json.gz"),
    "self_instruct": ("user_oriented_instructions.jsonl", "self_instruct_user_oriented.jsonl"),
    "ifeval": ("ifeval_input_data.jsonl", "input_data.jsonl"),
    "vicuna": ("vicuna_bench_question.jsonl", "question.jsonl"),
}
"""What the official files are called."""

BESIDE = {"eval": "alpaca_data_eval.json", "shift": "alpaca_data_shift.json"}
"""More records in Alpaca's format that a data folder may hold, by role."""

WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)
WITHOUT_INPUT = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:"
)
"""The two templates of Stanford Alpaca's train.py, which LLaMA-Adapter uses unchanged."""


@dataclass(frozen=True)
class Instruction:
    """One thing to do.

    Attributes:
        id: its name in records.
        instruction: what is to be done.
        input: what with; often empty.
        target: a response; empty where none is known.
        checks: what IFEval verifies of a response.
        options: none; there is nothing to choose from.
        image: none.
        near_duplicate: whether it shares a run of words with what was trained on.
    """

    id: str
    instruction: str
    input: str = ""
    target: str = ""
    checks: tuple[Check, ...] = ()
    options: tuple[str, ...] = ()
    image: Path | None = None
    near_duplicate: bool = False

    @property
    def prompt(self) -> str:
        """All that stands before the response."""
        if self.input:
            return WITH_INPUT.format(instruction=self.instruction, input=self.input)
        return WITHOUT_INPUT.format(instruction=self.instruction)

    @property
    def text(self) -> str:
        """Everything that is said in it."""
        return "\n".join((self.instruction, self.input, self.target))

    @property
    def group(self) -> str:
        """What is never divided between splits: the same question may have several answers."""
        return f"{self.instruction}\n{self.input}"


def read(path: Path, kind: str, skip_bad: int = 0) -> tuple[list[Instruction], list[str]]:
    """The instructions of a file in the format of that set, and what was wrong with the records left out.

    Raises:
        InputError: more than `skip_bad` records are not as the format says, or there is none.
    """
    bad = Tolerance(skip_bad)
    return parse(read_records(path, bad), kind, bad, str(path)), bad.left_out


def parse(entries: Iterator[Entry], kind: str, bad: Tolerance, source: str) -> list[Instruction]:
    """The instructions of some records.

    Raises:
        InputError: as `read`.
    """
    found: dict[str, Instruction] = {}
    for entry in entries:
        with bad.record():
            made = _FORMATS[kind](entry)
            if kind == "alpaca":  # whose records have no names, and some of them occur twice
                made = replace(made, id=_unused(made.id, found))
            elif made.id in found:
                raise InputError(f"{entry.place}: the id {made.id!r} occurs twice; give each record its own")
            found[made.id] = made
    if not found:
        raise InputError(f"{source}: there is no usable record; give a file in the format of {kind}")
    return list(found.values())


def _unused(name: str, known: Mapping[str, Any]) -> str:
    number = 1
    while name in known:
        number += 1
        name = f"{name.split('-')[0]}-{number}"
    return name


def _alpaca(entry: Entry) -> Instruction:
    asked = _asked(entry, "instruction")
    given = entry.text_if_any("input")
    target = entry.text("output")
    name = hashlib.sha256("\0".join((asked, given, target)).encode()).hexdigest()[:16]
    return Instruction(name, asked, given, target)


def _self_instruct(entry: Entry) -> Instruction:
    instances = entry.entries("instances")
    if not instances:
        raise InputError(f"{entry.place}: there is no instance; give one")
    given = instances[0].text("input")
    return Instruction(entry.text("id"), _asked(entry, "instruction"), given, instances[0].text("output"))


def _ifeval(entry: Entry) -> Instruction:
    prompt = _asked(entry, "prompt")
    return Instruction(str(entry.integer("key")), prompt, checks=Check.all_of(entry))


def _vicuna(entry: Entry) -> Instruction:
    turns = entry.texts("turns")
    if not turns or not turns[0].strip():
        raise InputError(f"{entry.place}: there is no question in 'turns'; give one")
    return Instruction(str(entry.integer("question_id")), turns[0])


def _asked(entry: Entry, key: str) -> str:
    text = entry.text(key)
    if not text.strip():
        raise InputError(f"{entry.place}: {key!r} is empty; say what is to be done")
    return text


_FORMATS: Mapping[str, Callable[[Entry], Instruction]] = {
    "alpaca": _alpaca,
    "self_instruct": _self_instruct,
    "ifeval": _ifeval,
    "vicuna": _vicuna,
}


def from_hub(kind: str) -> list[Instruction]:
    """A set from the local cache of `datasets` or the hub.

    Raises:
        InputError: neither has it.
    """
    flag = "--train" if kind == "alpaca" else "--eval"
    if kind not in HUB:
        raise InputError(f"{kind} is not on the hub: pass {flag} FILE, or --data FOLDER")
    import datasets

    loaded: Any = hub.asked(
        lambda: datasets.load_dataset(HUB[kind], split="train"),
        f"{kind} is neither given nor",
        f"pass {flag} FILE, or --data FOLDER",
    )
    entries = (Entry(dict(row), HUB[kind], f"row {number}") for number, row in enumerate(loaded))
    return parse(entries, kind, Tolerance(0), HUB[kind])


def official(folder: Path, kind: str) -> Path | None:
    """The official file of a set in a data folder, or in the one of its name there."""
    places = [root / name for root in (folder, folder / kind, folder / "instruct_eval") for name in FILES[kind]]
    return next((path for path in places if path.is_file()), None)


def beside(folder: Path) -> dict[str, Path]:
    """What a data folder holds to report on, besides Alpaca's own file."""
    return {role: folder / name for role, name in BESIDE.items() if (folder / name).is_file()}
