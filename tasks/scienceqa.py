"""ScienceQA: multiple-choice questions of school science, about half of them with a picture.

https://arxiv.org/abs/2209.09513: 21,208 questions, train 12,726, val 4,241, test 4,241; of the test questions 2,224
have no picture (`--dataset text`) and 2,017 have one (`image`); `all` are both. Train fits, val tunes, test reports.
Metric: accuracy in per cent, over all and in eight columns, `Avg` being the literature's one number.

    python -m tasks.scienceqa --tier pocket --method zero_init --data FOLDER

The prompt is the official QCM→A without lecture and solution; a picture enters through the prompts alone
(`pictures=false` asks the same questions without). `accuracy` is of the generated answer, read by a `dialect`;
`accuracy_likelihood` of the answer that the model finds likeliest among the options, and needs no extraction. Under
`scoring=likelihood` nothing is generated, and the likeliest answer counts for both.

Published, test, LLaMA-7B (LLaMA-Adapter, table 2): 78.31 without pictures, 85.19 with them, both over all questions.
Guessing gives 44.1 on `text`, 35.5 on `image` and 40.0 on `all`; the most frequent answer of train's questions with
as many options gives 43.6 on `text`. Both are noted beside each run, for the very questions it reports.
"""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from tasks import _scienceqa_files as files
from tasks._scienceqa_files import Problem
from tasks.bench import splits
from tasks.bench.config import Run
from tasks.bench.digests import digest
from tasks.bench.documents import Entry, is_there, omissions, read_json
from tasks.bench.errors import InputError
from tasks.bench.task import Data, Record, Rules, Score, Task, Term
from tasks.metrics import scienceqa_rules as rules
from tasks.mini import scienceqa as mini

OFFICIAL = {"text": (6508, 2144, 2224), "image": (6218, 2097, 2017), "all": (12726, 4241, 4241)}
"""Questions of train, val and test."""
FILES = {
    "text": ("problems.json", "problems_text_only.jsonl"),
    "image": ("problems.json", "problems_image_test.jsonl"),
    "all": ("problems.json",),
}
"""What is looked for in `--data`."""


@dataclass(frozen=True)
class Fields:
    """How questions are put, and answers read."""

    answer_format: Literal["(A)", "A"] = "(A)"  # LLaMA-Adapter's "The answer is (A).", or the official one
    scoring: Literal["generate", "likelihood", "both"] = "both"
    dialect: rules.Dialect = "strict"
    pictures: bool = True
    encoder: str | None = None  # of pictures: a CLIP model or a timm ViT by name or folder; None: the tier's
    depths: int = 4  # of the encoder, whose features are put together
    bottleneck: int | None = 64  # hidden width of the projection to prompts; None: a single linear map
    captions: bool = False  # in the context, as the official prompt can have them
    max_length: int = 2048
    max_new_tokens: int = 16
    tune_share: float = 0.1  # of the training questions, where there is no val
    report_share: float = 0.2  # of all questions, where there is no train
    report_limit: int | None = None  # report at most so many; `--limit` holds for every split

    def __post_init__(self) -> None:
        for name, least in (("max_length", 32), ("max_new_tokens", 1), ("report_limit", 1), ("bottleneck", 1)):
            if getattr(self, name) is not None and getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}: give {least} or more")
        splits.check_shares(tune_share=self.tune_share, report_share=self.report_share)
        if self.dialect != "strict" and self.answer_format == "(A)" and self.scoring != "likelihood":
            raise InputError(f"dialect={self.dialect} cannot read 'The answer is (A).': set answer_format=A too")


@dataclass(frozen=True)
class Asked:
    """A problem as it is put to a language model."""

    problem: Problem
    prompt: str
    target: str
    options: tuple[str, ...]
    image: Path | None

    @property
    def id(self) -> str:
        """The problem's."""
        return self.problem.id


class ScienceQA(Task):
    """Multiple-choice questions, answered by a language model."""

    version = 1
    output = "lm"
    datasets = ("text", "image", "all")
    headline: ClassVar = dict.fromkeys(datasets, ("accuracy", "accuracy_likelihood"))
    fields = Fields
    backbone = "llama"

    def sources(self, run: Run) -> Mapping[str, Path]:
        """The files of questions, and that of captions where these are asked for."""
        found = self._questions(run)
        if run.task.captions:
            found |= {
                f"captions of {role}": path
                for role, file in found.items()
                if (path := files.captions_file(file.parent))
            }
        return found

    def _questions(self, run: Run) -> dict[str, Path]:
        """The files given, else the one in `--data`, or in the mini world, that has the data set's questions."""
        choice = run.choice
        if choice.given:
            return choice.given
        folder = choice.folder(mini.folder)
        if folder is None:
            return {}
        found = files.official(folder, FILES[run.dataset])
        shift = files.shifted(found.parent)
        return {"problems" if choice.data else "generated": found} | ({"shift": shift} if shift else {})

    def load(self, run: Run) -> Data:
        """Train fits, val tunes, test reports; without train, the questions at hand are divided into all three."""
        f: Fields = run.task
        pools, notes, left_out = self._read(run)
        shift = pools.pop("shift", [])
        train, asked = (pools.get(role) or next(iter(pools.values())) for role in ("train", "eval"))
        fit, tune, report = _of(train, "train"), _of(train, "val"), _of(asked, "test")
        expected = len(report or asked) + left_out
        least = OFFICIAL[run.dataset] if "problems" in pools else (0, 0, 0)
        whole = all(len(part) >= size for part, size in zip((fit, tune), least, strict=False))
        expected = max(expected, least[-1])
        if len(pools) == 2:
            fit, tune = (fit, tune) if fit else (train, [])
            report = report or asked
        elif not run.divides(next(iter(pools))):
            report = report or asked
        elif not fit or not report:
            report, rest = splits.divide(asked, _group, f.report_share)
            tune, fit = splits.divide(rest, _group, f.tune_share)
            notes.append("no official division at hand: fit, tune and report are parts of the same questions")
        if fit and not tune:
            tune, fit = splits.divide(fit, _group, f.tune_share)
        if not report:
            raise InputError("there is nothing to report on: give a file with more questions")
        limit = run.choice.limit
        whole &= limit is None or max(len(fit), len(tune)) <= limit
        fit, tune, report, shift = (splits.sample(part, limit) for part in (fit, tune, report, shift))
        report = splits.sample(report, f.report_limit)
        if shared := _shared([*fit, *tune], report):
            notes.append(f"{shared} questions of the report split are trained on too")
        notes += _baselines(fit, report)
        fit, tune, report, shift = ([_put(p, f) for p in part] for part in (fit, tune, report, shift))
        return Data(fit, tune, report, expected, notes, whole, shift)

    def _read(self, run: Run) -> tuple[dict[str, list[Problem]], list[str], int]:
        """The data set's problems by role, notes, and how many records were left out of what is reported."""
        f: Fields = run.task
        paths = self._questions(run)
        pictures = run.dataset != "text" and (f.pictures or run.dataset == "image")
        pools, bad = {}, {}
        for role, path in paths.items():
            pools[role], bad[role] = files.problems(path, run.choice.skip_bad, pictures=pictures, captions=f.captions)
        left_out = sum(len(wrong) for role, wrong in bad.items() if role not in ("train", "shift") or len(paths) == 1)
        pools = pools or {"problems": files.from_hub(pictures=pictures)}
        wanted = {"text": (False,), "image": (True,), "all": (False, True)}[run.dataset]
        for role, found in pools.items():
            pools[role] = [problem for problem in found if (problem.image is not None) in wanted]
            if not pools[role]:
                raise InputError(f"{paths.get(role, files.HUB)}: none of its questions is of --dataset {run.dataset}")
        if f.captions and not any(problem.caption for found in pools.values() for problem in found):
            raise InputError("captions=true, but there are none: put captions.json beside the problems")
        return pools, omissions(bad), left_out

    def reader(self, tokenizer: Any, run: Run) -> Any:
        """Prompts and answers."""
        from tasks.backbones import _vision
        from tasks.outputs.lm import LmReader

        f: Fields = run.task
        return LmReader(
            tokenizer,
            max_length=f.max_length,
            max_new_tokens=f.max_new_tokens if f.scoring != "likelihood" else 0,
            pictures=_vision.shown(run) if run.dataset != "text" else None,
        )

    def rules(self, run: Run) -> Rules:
        """How the answer is come by is part of the protocol."""
        f: Fields = run.task
        answer = "likeliest answer" if f.scoring == "likelihood" else f"generated answer, dialect {f.dialect}"
        return Rules(f"{super().rules(run).name}, {answer}")

    def oracle(self, fit: Sequence[Asked], examples: Sequence[Asked], reader: Any, run: Run) -> Sequence[Any]:
        """The right option."""
        return [_said(asked, asked.problem.answer, run) for asked in examples]

    def majority(self, fit: Sequence[Asked], examples: Sequence[Asked], reader: Any, run: Run) -> Sequence[Any]:
        """The option that is most often right, among questions with so many."""
        seen = Counter((len(asked.problem.choices), asked.problem.answer) for asked in fit)
        return [
            _said(asked, max(range(count), key=lambda option, count=count: seen[count, option]), run)
            for asked in examples
            for count in [len(asked.problem.choices)]
        ]

    def records(self, examples: Sequence[Asked], predictions: Sequence[Any], run: Run) -> list[Record]:
        """The answer that was generated, and the one that is likeliest; with the labels that make the columns."""
        f: Fields = run.task
        records = []
        for asked, said in zip(examples, predictions, strict=True):
            p = asked.problem
            record: Record = {"id": p.id, "choices": len(p.choices), "answer": p.answer, **p.labels._asdict()}
            if f.scoring != "generate":
                likeliest = max(range(len(p.choices)), key=said.options.__getitem__)
                record |= {"log_probabilities": said.options, "likeliest": likeliest}
                record |= {"correct_likelihood": likeliest == p.answer, "correct": likeliest == p.answer}
            if f.scoring != "likelihood":
                found = rules.extract(said.text, len(p.choices), f.dialect, p.id)
                record |= {"prediction": said.text, "extracted": found.option, "correct": found.option == p.answer}
                record |= {"extract_fail": found.failed, "empty": not said.text, "truncated": said.truncated}
            records.append(record)
        return records

    def metrics(self, records: Sequence[Record], dataset: str) -> dict[str, Score]:
        """Accuracy and its columns, of the answers and of the likeliest ones; and how often extraction failed."""
        return {
            name: Score.of(
                sum(100.0 * records[place][field] for place in places) / len(places), _right(records, field, places)
            )
            for name, (field, places) in _shares(records).items()
        }

    def terms(self, records: Sequence[Record], metric: str) -> list[Term] | None:
        """Right or wrong, of the questions in the metric's column."""
        share = _shares(records).get(metric)
        return _right(records, *share) if share else None

    def score(
        self, predictions: Path, references: Path, dialect: str = "strict", split: str | None = None
    ) -> dict[str, Any]:
        """Accuracy, the columns and `extract_fail`, of texts or option numbers by pid.

        The references' test questions are scored, or all where none is of test; `split` chooses another part.
        """
        if dialect not in ("strict", "official", "llava"):
            raise InputError(f"--dialect {dialect!r} does not exist: choose one of strict, official, llava")
        problems = {problem.id: problem for problem in files.problems(references)[0]}
        there = {problem.split for problem in problems.values()}
        split = split or ("test" if "test" in there else "all")
        if split not in {*there, "all"}:
            raise InputError(
                f"{references}: no question is of --split {split}: choose one of {', '.join(sorted(there))}, all"
            )
        asked = [problem for problem in problems.values() if split in (problem.split, "all")]
        said = read_json(predictions)
        scored = {problem.id for problem in asked}
        names = said.keys()
        for name in names:
            if name not in scored:
                where = f"is of {problems[name].split}, not {split}" if name in problems else "is in no reference"
                raise InputError(f"{predictions}: the question {name!r} {where}: leave it out, or choose --split")
        found = [_extracted(said, problem, dialect) for problem in asked]
        if missing := [problem.id for problem in asked if not said.has(problem.id)]:
            print(
                f"{len(missing)} of {len(asked)} questions have no prediction and count as wrong, first {missing[0]!r}",
                file=sys.stderr,
            )
        correct = [one.option == problem.answer for one, problem in zip(found, asked, strict=True)]
        return rules.score([problem.labels for problem in asked], correct, [one.failed for one in found])


def _extracted(said: Entry, problem: Problem, dialect: Any) -> rules.Extracted:
    """From a text or an option's number; a missing prediction names no option."""
    if not said.has(problem.id):
        return rules.Extracted(None, failed=True)
    given = said.value[problem.id]
    if isinstance(given, int) and not isinstance(given, bool):
        return rules.numbered(given, len(problem.choices))
    return rules.extract(said.text(problem.id), len(problem.choices), dialect, problem.id)


def _put(problem: Problem, f: Fields) -> Asked:
    """The official QCM→A prompt (`models/base_prompt.py`), its one answer, and those of all options."""
    context = " ".join([problem.hint, problem.caption if f.captions else ""]).strip() or "N/A"
    options = " ".join(f"({letter}) {choice}" for letter, choice in zip(rules.LETTERS, problem.choices, strict=False))
    text = f"Question: {problem.question}\nContext: {context}\nOptions: {options}\nAnswer:"
    letters = rules.LETTERS[: len(problem.choices)]
    answers = tuple(f" The answer is {f.answer_format.replace('A', letter)}." for letter in letters)
    return Asked(
        problem,
        text.replace("  ", " ").strip(),
        answers[problem.answer],
        answers if f.scoring != "generate" else (),
        problem.image if f.pictures else None,
    )


def _said(asked: Asked, option: int, run: Run) -> Any:
    """An option as a model would say it and find it likely."""
    from tasks.outputs.lm import Said

    letters = rules.LETTERS[: len(asked.problem.choices)]
    text = f"The answer is {run.task.answer_format.replace('A', letters[option])}."
    return Said(text, options=tuple(0.0 if place == option else -1.0 for place in range(len(letters))))


def _of(problems: Sequence[Problem], split: str) -> list[Problem]:
    return [problem for problem in problems if problem.split == split]


def _group(problem: Problem) -> str:
    """Questions about one picture stay together; so do those with the same words, where there is none."""
    return _picture(problem) or problem.question


def _picture(problem: Problem) -> str | None:
    """What tells its picture from others: the content or, where pictures are not wanted and not there, whose it is."""
    if problem.image is None:
        return None
    return digest(problem.image) if is_there(problem.image) else problem.id


def _shared(seen: Sequence[Problem], asked: Sequence[Problem]) -> int:
    """How many questions are among those seen, words and picture; only pictures of the same words are opened."""

    def words(problem: Problem) -> tuple[Any, ...]:
        return problem.question, problem.choices, problem.hint

    def whole(problem: Problem) -> tuple[Any, ...]:
        return *words(problem), _picture(problem)

    told = {*map(words, seen)} & {*map(words, asked)}
    there, here = ({whole(problem) for problem in part if words(problem) in told} for part in (seen, asked))
    return len(there & here)


def _baselines(fit: Sequence[Problem], report: Sequence[Problem]) -> list[str]:
    """What needs no model, for the questions reported."""
    seen, asked = ([(len(p.choices), p.answer) for p in part] for part in (fit, report))
    notes = [f"guessing scores {rules.chance([options for options, _ in asked]):.1f}"]
    return [*notes, f"the most frequent answer of fit scores {rules.majority(seen, asked):.1f}"] if seen else notes


def _right(records: Sequence[Record], field: str, places: Sequence[int]) -> list[Term]:
    within = set(places)
    return [Term(100.0 * record[field], float(place in within)) for place, record in enumerate(records)]


def _shares(records: Sequence[Record]) -> dict[str, tuple[str, Sequence[int]]]:
    """Each metric is the share of the questions at some places of which some field is true."""
    columns = rules.columns([rules.Labels(*(r[name] for name in rules.Labels._fields)) for r in records])
    columns = {"accuracy": range(len(records)), **columns}
    found: dict[str, tuple[str, Sequence[int]]] = {}
    for ending in ("", "_likelihood"):
        if f"correct{ending}" in records[0]:
            found |= {column + ending: (f"correct{ending}", places) for column, places in columns.items()}
    if "extract_fail" in records[0]:
        found["extract_fail"] = ("extract_fail", columns["accuracy"])
    return found


if __name__ == "__main__":
    from tasks.bench.commandline import main

    raise SystemExit(main("scienceqa"))
