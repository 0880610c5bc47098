"""Following instructions, learned from Alpaca's 52,002 (https://github.com/tatsu-lab/stanford_alpaca).

| --dataset | what is asked | numbers |
|---|---|---|
| alpaca | a held-out part of the file, by a hash of instruction and input | nll a token, perplexity, bits a byte |
| self_instruct | 252 user-oriented tasks with a reference (https://arxiv.org/abs/2212.10560) | ROUGE-L, and the same |
| ifeval | 541 prompts, 834 verifiable instructions (https://arxiv.org/abs/2311.07911) | its four accuracies |
| vicuna | 80 questions, answered into the cell's records, to be judged in pairs | lengths |

The templates are Stanford Alpaca's, the loss is on the response alone. `--train` is an Alpaca file, `--eval` the set's.
`nll` is in nats a token of the response, its end included; `bits_per_byte` compares models with different tokenizers.
Answers are greedy unless `temperature` is set (LLaMA-Adapter's example: temperature 0.1, top_p 0.75, 512 tokens).

    python -m tasks.instruct --tier pocket --method zero_init --train alpaca_data.json
    python -m tasks.instruct --tier pocket --dataset ifeval --adapter CELL/adapter --eval ifeval_input_data.jsonl
    python -m tasks.instruct judge --answers CELL --against CELL --questions vicuna_bench_question.jsonl --model NAME
    python -m tasks score instruct --predictions answers.jsonl --references ifeval_input_data.jsonl

LLaMA-Adapter's code validates on the first 200 records of what it trains on; none of its numbers is such a likelihood.
Its table 18 (Open LLM): Alpaca 49.2, Alpaca-LoRA 50.7, LLaMA-Adapter 52.2.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from tasks import _instruct_files as files
from tasks._instruct_files import Instruction
from tasks.bench import splits
from tasks.bench.config import Run
from tasks.bench.documents import Tolerance, read_lines
from tasks.bench.errors import InputError
from tasks.bench.overlap import WORDS, shares_a_run
from tasks.bench.task import Data, Record, Score, Task, Term
from tasks.metrics import ifeval_rules
from tasks.metrics.rouge_rules import rouge_l
from tasks.mini import instruct as mini

NEW_TOKENS = {"alpaca": 0, "self_instruct": 256, "ifeval": 1280, "vicuna": 1024}
"""Tokens of an answer where `max_new_tokens` is not set; IFEval's is the usual one."""
LIKELIHOODS = ("nll", "perplexity", "bits_per_byte")
MEANS = ("rouge_l", "answer_tokens", "answer_words")
"""What is a mean over the records that have it."""
WEIGHED = ("alpaca", "self_instruct")
"""The data sets that have references."""


@dataclass(frozen=True)
class Fields:
    """How much is read and said, and how it is drawn."""

    max_length: int = 512  # tokens of a prompt and its response; responses are cut there, as by Alpaca's own code
    max_new_tokens: int | None = None  # of an answer; None: as many as the data set is asked with, for alpaca none
    temperature: float = 0.0
    top_p: float = 1.0
    num_beams: int = 1
    tune_share: float = 0.02  # of the training records
    report_share: float = 0.02  # of all Alpaca records, where one file serves for everything

    def __post_init__(self) -> None:
        if self.max_length < 32:
            raise InputError(f"max_length is {self.max_length}: give 32 or more")
        if self.max_new_tokens is not None and self.max_new_tokens < 0:
            raise InputError(f"max_new_tokens is {self.max_new_tokens}: give 0 or more")
        if self.temperature < 0:
            raise InputError(f"temperature is {self.temperature}: give 0 or more")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}: give a share above 0, up to 1")
        if self.num_beams < 1:
            raise InputError(f"num_beams is {self.num_beams}: give 1 or more")
        splits.check_shares(tune_share=self.tune_share, report_share=self.report_share)


class Instruct(Task):
    """Instructions and responses."""

    version = 1
    output = "lm"
    backbone = "llama"
    datasets = ("alpaca", "self_instruct", "ifeval", "vicuna")
    headline: ClassVar = {
        "alpaca": ("nll", "perplexity", "bits_per_byte"),
        "self_instruct": ("rouge_l", "nll"),
        "ifeval": ("prompt_strict", "prompt_loose", "instruction_strict", "instruction_loose"),
        "vicuna": ("answer_words",),
    }
    lower: ClassVar = frozenset(LIKELIHOODS)
    neutral: ClassVar = frozenset({"answer_tokens", "answer_words"})
    digits: ClassVar = dict.fromkeys(LIKELIHOODS, 3)
    fields = Fields

    def sources(self, run: Run) -> Mapping[str, Path]:
        """The files given, else the official ones in `--data`, or in the mini world."""
        choice = run.choice
        if choice.given:
            return choice.given
        folder = choice.folder(mini.folder)
        if folder is None:
            return {}
        kinds = {"train": "alpaca"} | ({} if run.dataset == "alpaca" else {"eval": run.dataset})
        found = {role: files.official(folder, kind) for role, kind in kinds.items()}
        found |= files.beside(folder) if run.dataset == "alpaca" else {}
        needed = {"eval"} | ({"train"} if run.fits or run.dataset == "alpaca" else set())
        missing = [kinds[role] for role, path in found.items() if path is None and role in needed]
        if missing:
            names = " or ".join(files.FILES[missing[0]])
            raise InputError(f"--data {folder} holds no {names}: add it, or name the file with --train or --eval")
        return {role: path for role, path in found.items() if path is not None}

    def load(self, run: Run) -> Data:
        """Fit and tune from Alpaca; report its held-out part, `--eval`, or the benchmark's questions."""
        f: Fields = run.task
        bad: list[str] = []
        given = list(self.sources(run))
        whole: list[Instruction] = []
        if run.dataset != "alpaca" or {"train", "eval"} <= {*given}:
            report = self._read(run, "eval", run.dataset, bad)
            train = self._read(run, "train", "alpaca", bad) if run.fits else []
        else:
            role = given[0] if given else "train"
            whole = self._read(run, role, "alpaca", bad)
            report, train = whole, []
            if run.divides(role):
                report, train = splits.divide(whole, _group, f.report_share)
        if not report:
            raise InputError(f"report_share = {f.report_share} leaves nothing to report: raise it, or give --eval")
        official = run.dataset != "alpaca" and not run.choice.generated
        expected = max(len(report), files.SIZES[run.dataset]) if official else len(report)
        if given:
            expected = max(expected, len(whole))  # of one file, a part is reported
        train = train if run.fits else []
        # Nothing is chosen by a benchmark's numbers, so its runs need no tune split.
        tune, fit = splits.divide(train, _group, f.tune_share if run.dataset == "alpaca" else 0)
        limit = run.choice.limit
        shift = self._read(run, "shift", "alpaca", bad) if "shift" in given else []
        fit, tune, report, shift = (splits.sample(part, limit) for part in (fit, tune, report, shift))
        notes = [f"{len(bad)} bad records left out: {' | '.join(bad)}"] if bad else []
        if run.trains:
            near = shares_a_run([one.text for one in report], (one.text for one in fit))
            report = [replace(one, near_duplicate=found) for one, found in zip(report, near, strict=True)]
            notes.append(f"{sum(near)} of {len(report)} report records share {WORDS} words in a row with the fit split")
        return Data(fit, tune, report, expected, notes, shift=shift)

    def _read(self, run: Run, role: str, kind: str, bad: list[str]) -> list[Instruction]:
        """The records of a file or of the hub."""
        path = self.sources(run).get(role)
        if path is not None:
            found, wrong = files.read(path, kind, run.choice.skip_bad)
            bad += wrong
            return found
        return files.from_hub(kind)

    def reader(self, tokenizer: Any, run: Run) -> Any:
        """Prompts, responses and answers."""
        from tasks.outputs.lm import LmReader

        f: Fields = run.task
        if run.dataset not in WEIGHED and not self._new_tokens(run):
            raise InputError(f"max_new_tokens is 0, but {run.dataset} is about answers: give 1 or more")
        return LmReader(
            tokenizer,
            max_length=f.max_length,
            max_new_tokens=self._new_tokens(run),
            weigh_target=run.dataset in WEIGHED,
            temperature=f.temperature,
            top_p=f.top_p,
            num_beams=f.num_beams,
            seed=run.choice.seed,
            cut=True,
        )

    def oracle(
        self, fit: Sequence[Instruction], examples: Sequence[Instruction], reader: Any, run: Run
    ) -> Sequence[Any]:
        """The response, as the only one that could be."""
        if run.dataset not in WEIGHED:
            return super().oracle(fit, examples, reader, run)
        return _known(examples, reader, lambda _: 0.0, answers=True)

    def majority(
        self, fit: Sequence[Instruction], examples: Sequence[Instruction], reader: Any, run: Run
    ) -> Sequence[Any]:
        """Each token of a response as likely as it is in those of fit, one more counted for every token there is."""
        if run.dataset not in WEIGHED:
            return super().majority(fit, examples, reader, run)
        seen = Counter(token for row in reader.fit(fit) for token in row.continuations[0].tolist())
        total = math.log(sum(seen.values()) + len(reader.tokenizer))
        return _known(examples, reader, lambda tokens: sum(total - math.log(seen[token] + 1) for token in tokens))

    def records(self, examples: Sequence[Instruction], predictions: Sequence[Any], run: Run) -> list[Record]:
        """Likelihood of the reference, the answer with its length, and what the data set scores of it."""
        weighs = run.dataset in WEIGHED
        answers = self._new_tokens(run) > 0
        records = []
        for asked, said in zip(examples, predictions, strict=True):
            record: Record = {"id": asked.id, "near_duplicate": asked.near_duplicate}
            if weighs:
                record |= {"nll": said.nll, "tokens": said.tokens, "bytes": len(asked.target.encode())}
            if answers:
                record |= {"prediction": said.text, "empty": not said.text}
                record |= {"answer_tokens": said.new_tokens, "answer_words": len(said.text.split())}
                if asked.target:
                    record["rouge_l"] = rouge_l(said.text, asked.target)
                if asked.checks:
                    record |= ifeval_rules.judge(asked.checks, said.text)._asdict()
            records.append(record | {"cut": said.cut, "truncated": said.truncated or said.cut})
        return records

    def metrics(self, records: Sequence[Record], dataset: str) -> dict[str, Score]:
        """Likelihoods over all tokens, means over answers, and IFEval's four over the prompts that it checks."""
        found = _likelihoods(records)
        for name in MEANS:
            values = [float(record[name]) for record in records if name in record]
            if values:
                found[name] = sum(values) / len(values)
        followed = [ifeval_rules.Followed(r["strict"], r["loose"]) for r in records if "strict" in r]
        if followed:
            found |= ifeval_rules.total(followed)
        return {name: Score.of(value, self.terms(records, name)) for name, value in found.items()}

    def terms(self, records: Sequence[Record], metric: str) -> list[Term] | None:
        """Of likelihoods by tokens or bytes, of IFEval by prompts or instructions; perplexity is no mean."""
        parts = [_part(record, metric) for record in records]
        if not any(weight for _, weight in parts):
            return None
        return [Term(added / weight, weight) if weight else Term(0, 0) for added, weight in parts]

    def score(self, predictions: Path, references: Path) -> dict[str, Any]:
        """IFEval's four accuracies of anybody's responses: lines of `prompt` and `response`."""
        asked, _ = files.read(references, "ifeval")
        responses: dict[str, str] = {}
        for entry in read_lines(predictions, Tolerance(0)):
            prompt = entry.text("prompt")
            if prompt in responses:
                raise InputError(f"{entry.place}: this prompt has a response already; give one for each")
            responses[prompt] = entry.text("response")
        missing = [one for one in asked if one.instruction not in responses]
        if missing:
            raise InputError(
                f"{predictions}: {len(missing)} of {len(asked)} prompts have no response, first that of key "
                f'{missing[0].id}: give "" where there is none'
            )
        return ifeval_rules.total([ifeval_rules.judge(one.checks, responses[one.instruction]) for one in asked])

    def _new_tokens(self, run: Run) -> int:
        asked: int | None = run.task.max_new_tokens
        return NEW_TOKENS[run.dataset] if asked is None else asked


def _known(
    examples: Sequence[Instruction], reader: Any, nll: Callable[[Sequence[int]], float], *, answers: bool = False
) -> list[Any]:
    """What is known without a model, as a model would say it; the likelihood is of what the reader weighs."""
    from tasks.outputs.lm import Said

    said = []
    for asked, row in zip(examples, reader.ask(examples), strict=True):
        tokens = row.continuations[0].tolist()
        text = asked.target if answers else ""
        length = len(tokens) - 1 if answers else 0
        said.append(Said(text, nll(tokens), len(tokens), new_tokens=length, cut=row.cut))
    return said


def _likelihoods(records: Sequence[Record]) -> dict[str, float]:
    """Of all tokens of the references; bits a byte of the responses that were not cut, whose bytes are known."""
    tokens = sum(record.get("tokens", 0) for record in records)
    if not tokens:
        return {}
    mean = sum(record["nll"] for record in records) / tokens
    found = {"nll": mean, "perplexity": math.exp(mean) if mean < 709 else math.inf}  # no float holds e to the 710
    whole = [r for r in records if not r["cut"] and r["bytes"]]
    if whole:
        bits = sum(r["nll"] for r in whole) / math.log(2)
        found["bits_per_byte"] = bits / sum(r["bytes"] for r in whole)
    return found


def _part(record: Record, metric: str) -> tuple[float, float]:
    """What a record adds to the sum that a metric is, and to the sum that it is divided by."""
    level, _, strictness = metric.partition("_")
    if metric == "nll":
        return record.get("nll", 0.0), record.get("tokens", 0)
    if metric == "bits_per_byte":
        return record.get("nll", 0.0) / math.log(2), 0 if record["cut"] else record.get("bytes", 0)
    if metric in MEANS:
        return record.get(metric, 0.0), float(metric in record)
    if level == "prompt":
        return (100.0 * all(record[strictness]), 1) if strictness in record else (0.0, 0)
    if level == "instruction":
        return 100.0 * sum(record.get(strictness, ())), len(record.get(strictness, ()))
    return 0.0, 0


def _group(one: Instruction) -> str:
    return one.group


if __name__ == "__main__":
    import sys

    from tasks.bench.commandline import guarded, main

    if sys.argv[1:2] == ["judge"]:
        from tasks import _judge

        raise SystemExit(guarded(_judge.app, sys.argv[2:]))
    raise SystemExit(main("instruct"))
