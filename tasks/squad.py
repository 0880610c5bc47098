"""SQuAD v1.1 and v2.0: the span of a Wikipedia passage that answers a question, or that there is none.

https://arxiv.org/abs/1606.05250 (v1.1: train 87,599 questions, dev 10,570) and
https://arxiv.org/abs/1806.03822 (v2.0: train 130,319, dev 11,873, of which 5,945 have no answer).
The test sets are hidden; papers report dev. Metrics: exact match and token F1 by the official rules, in per cent.
Windows of 384 tokens with an overlap of 128, spans of at most 30 tokens, the 20 best starts and ends, as in the
`run_qa` example of transformers.

    python -m tasks.squad --tier pocket --backbone roberta --method zero_init \
        --train train-v1.1.json --eval dev-v1.1.json

Published, RoBERTa-large, dev, EM / F1 (LLaMA-Adapter, table 7): full 88.9 / 94.6 on v1.1 and 86.5 / 89.4 on v2.0;
zero-init 88.8 / 94.6 and 83.9 / 87.2. On v2.0, answering nothing anywhere gives 50.07.
"""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from tasks._squad_files import Question, from_hub, golds, official, read
from tasks.bench import splits
from tasks.bench.config import Run
from tasks.bench.documents import omissions, read_json
from tasks.bench.errors import InputError
from tasks.bench.task import Data, Record, Rules, Score, Task, Term
from tasks.metrics import squad_rules as rules
from tasks.mini import squad as mini

GROUPS = {"": {True, False}, "HasAns": {True}, "NoAns": {False}}
"""Of which questions a metric is, those with an answer or those without, by the first part of its name."""


@dataclass(frozen=True)
class Fields:
    """How passages are cut into windows, and spans chosen from them."""

    max_length: int = 384
    doc_stride: int = 128  # tokens that neighboring windows share
    n_best: int = 20
    max_answer_length: int = 30  # in tokens
    null_threshold: float = 0.0  # v2.0: how far "no answer" must lead
    tune_share: float = 0.1  # of the training articles
    report_share: float = 0.2  # of all articles, where one file serves for everything
    selection: Literal["last-epoch", "best-dev-epoch"] = "last-epoch"  # the best one only to compare with P-tuning v2

    def __post_init__(self) -> None:
        for name, least in (("max_length", 32), ("n_best", 1), ("max_answer_length", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}: give {least} or more")
        if not 0 <= self.doc_stride < self.max_length // 2:
            raise InputError(f"doc_stride is {self.doc_stride}: give less than half of max_length")
        splits.check_shares(tune_share=self.tune_share, report_share=self.report_share)


class Squad(Task):
    """Extractive question answering."""

    version = 1
    output = "span"
    datasets = ("v1.1", "v2.0")
    headline: ClassVar = {"v1.1": ("exact_match", "f1"), "v2.0": ("exact", "f1")}
    quotes = frozenset({"prediction", "span"})
    fields = Fields

    def rules(self, run: Run) -> Rules:
        """P-tuning v2 reports its best epoch on dev, by F1."""
        usual = super().rules(run)
        if run.task.selection == "last-epoch":
            return usual
        chosen = "DEV-SELECTED: best F1 of every epoch on the report split"
        return Rules(f"{usual.name}, best dev epoch", chosen, peek_epochs=1, peek_metric="f1")

    def sources(self, run: Run) -> Mapping[str, Path]:
        """The files given, else the official ones in `--data`, or in the mini world."""
        choice = run.choice
        if choice.given:
            return choice.given
        folder = choice.folder(mini.folder)
        return official(folder, run.dataset) if folder else {}

    def load(self, run: Run) -> Data:
        """Fit and tune from the training articles, report from the others; one file is divided into three."""
        parts, bad = self._read(run)
        notes = omissions(bad)
        shift = parts.pop("shift", [])
        role = "eval" if "eval" in parts else "train"
        report, expected = parts[role], len(parts[role]) + len(bad.get(role, ()))
        train = parts["train"] if len(parts) > 1 else []
        if len(parts) == 1 and run.divides(role):
            report, train = splits.divide(report, _article, run.task.report_share)
            notes.append("one file: fit, tune and report are parts of it")
            if not report:
                raise InputError(f"--{role} holds one article, which is not divided: give --train and --eval")
        if shared := {q.context for q in train} & {q.context for q in report}:
            notes.append(f"{len(shared)} passages of the report split are trained on too")
        if run.dataset == "v2.0":
            nothing = sum(not q.answers for q in report) / len(report)
            notes.append(f"answering nothing anywhere scores {100 * nothing:.1f}")
        tune, fit = splits.divide(train, _article, run.task.tune_share)
        limit = run.choice.limit
        fit, tune, report, shift = (splits.sample(part, limit) for part in (fit, tune, report, shift))
        return Data(fit, tune, report, expected, notes, shift=shift)

    def _read(self, run: Run) -> tuple[dict[str, list[Question]], dict[str, list[str]]]:
        """Questions, and what was wrong with the records left out, by role."""
        files = self.sources(run)
        if not files:
            return from_hub(run.dataset), {}
        parts, bad = {}, {}
        for role, path in files.items():
            parts[role], bad[role] = read(path, run.dataset, run.choice.skip_bad)
        return parts, bad

    def reader(self, tokenizer: Any, run: Run) -> Any:
        """Windows over the passages."""
        from tasks.outputs.span import SpanReader

        f: Fields = run.task
        return SpanReader(tokenizer, f.max_length, f.doc_stride, f.n_best, f.max_answer_length)

    def oracle(self, fit: Sequence[Question], examples: Sequence[Question], reader: Any, run: Run) -> Sequence[Any]:
        """The first accepted answer."""
        return [_said(asked.answers[0] if asked.answers else "", run) for asked in examples]

    def majority(self, fit: Sequence[Question], examples: Sequence[Question], reader: Any, run: Run) -> Sequence[Any]:
        """The answer that most questions of fit have; in v2.0 that may be none."""
        first = Counter(asked.answers[0] if asked.answers else "" for asked in fit)
        return [_said(max(first, key=lambda text: (first[text], text)), run)] * len(examples)

    def records(self, examples: Sequence[Question], predictions: Sequence[Any], run: Run) -> list[Record]:
        """The answer given and its scores; on v2.0 also the best span, and how far "no answer" leads it."""
        records = []
        for asked, said in zip(examples, predictions, strict=True):
            record: Record = {"id": asked.id, "prediction": said.text, "score": said.score}
            if run.dataset == "v2.0":
                span = rules.question_v2(said.text, asked.answers)
                record |= {"null_score": said.null_score, "span": said.text}
                record |= {"span_exact": span.exact, "span_f1": span.f1}
                if said.null_score > run.task.null_threshold:
                    record["prediction"] = ""
            rule = rules.question_v1 if run.dataset == "v1.1" else rules.question_v2
            scored = rule(record["prediction"], asked.answers)
            record |= {"answerable": scored.answerable, "exact": scored.exact, "f1": scored.f1}
            records.append(record | {"empty": not said.text})
        return records

    def metrics(self, records: Sequence[Record], dataset: str) -> dict[str, Score]:
        """The official keys; for v2.0's `best_*` oracles the best span of each question competes."""
        scored = [rules.Scored(r["answerable"], bool(r["prediction"]), r["exact"], r["f1"]) for r in records]
        if dataset == "v1.1":
            totals = rules.total_v1(scored)
        else:
            spans = [rules.Scored(r["answerable"], bool(r["span"]), r["span_exact"], r["span_f1"]) for r in records]
            totals = rules.total_v2(scored) | rules.oracle(spans, [r["null_score"] for r in records])
        return {key: Score.of(value, self.terms(records, key)) for key, value in totals.items()}

    def terms(self, records: Sequence[Record], metric: str) -> list[Term] | None:
        """Exact match and F1 of all questions, or of those with or without an answer; oracles are no means."""
        group, _, name = metric.rpartition("_") if metric != "exact_match" else ("", "", "exact")
        if group not in GROUPS or name not in ("exact", "f1"):
            return None
        return [Term(100 * record[name], float(record["answerable"] in GROUPS[group])) for record in records]

    def score(
        self, predictions: Path, references: Path, dataset: str | None = None, na_prob_file: str | None = None
    ) -> dict[str, Any]:
        """The official metric; the references say which version they are, `dataset` overrules them."""
        accepted, version = golds(read_json(references))
        version = dataset or version
        if version not in self.datasets:
            raise InputError(f"--dataset {version!r} does not exist: choose one of {', '.join(self.datasets)}")
        document = read_json(predictions)
        given = set(document.keys())
        texts = {key: document.text(key) for key in accepted if key in given}
        missing = [key for key in accepted if key not in texts]
        count = f"{len(missing)} of {len(accepted)} questions have no prediction"
        if version == "v1.1":
            if unanswerable := [key for key, answers in accepted.items() if not answers]:
                raise InputError(f"{references}: {unanswerable[0]} has no answer: score it as --dataset v2.0")
            if missing:
                print(f"{count} and count 0", file=sys.stderr)
            return rules.score_v1(accepted, texts)
        if missing:
            raise InputError(f'{predictions}: {count}, first {missing[0]}: predict "" for no answer')
        if na_prob_file is None:
            return rules.score_v2(accepted, texts)
        probabilities = read_json(Path(na_prob_file))
        return rules.score_v2(accepted, texts, {key: probabilities.number(key) for key in accepted})


def _said(text: str, run: Run) -> Any:
    """A span as a model would say it, or on v2.0 that there is none."""
    from tasks.outputs.span import Span

    return Span(text, 0.0, run.task.null_threshold + (-1.0 if text else 1.0))


def _article(question: Question) -> str:
    return question.title


if __name__ == "__main__":
    from tasks.bench.commandline import main

    raise SystemExit(main("squad"))
