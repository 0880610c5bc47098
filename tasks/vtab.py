"""VTAB-1k: nineteen sets of pictures to classify, each learned from 1,000.

https://arxiv.org/abs/1910.04867. Every set has 800 pictures to train on, 200 to choose with, and its whole test set:
from 711 (kitti) to 73,728 (dsprites), 387,904 in all. Metric: top-1 accuracy in per cent; summaries are the mean of
the three groups' means and the mean of the nineteen, which differ by points and must be told apart.

    python -m tasks.vtab --dataset dtd --tier paper --method zero_init --data vtab-1k

The folder holds packs in the community's layout (`tasks/_vtab_files.py`) or, as a partial stand-in, a folder of
pictures for each class. Pictures are squashed to the backbone's square, and nothing is augmented. What published
numbers disagree on is a field, and part of the number's fingerprint:

    --set protocol=val-select       choose on 800 → 200, train on the 1,000, report the last step (the default), or
                   test-best10      report the best of every 10 epochs *on the test set*: only to compare with others
    --set normalisation=imagenet    or inception, none
    --set interpolation=bicubic     or bilinear

`--dataset own --data FOLDER` takes pictures of yours, with a folder for each class; it stands in none of the means.

Published, ViT-B/16, mean of groups (LLaMA-Adapter, table 6): zero-init 74.3, full 69.0, VPT 72.0; with test-selected
checkpoints others report up to 78.1. `results/published.csv` has every set of 25 methods.
"""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from tasks import _vtab_files as files
from tasks._vtab_files import Picture
from tasks._vtab_sets import ALIASES, DATASETS, OWN
from tasks.bench import splits
from tasks.bench.config import Run
from tasks.bench.documents import Tolerance, omissions
from tasks.bench.errors import InputError
from tasks.bench.task import Data, Record, Rules, Score, Task, Term
from tasks.metrics import vtab_means as means
from tasks.mini import vtab as mini


@dataclass(frozen=True)
class Fields:
    """How pictures are prepared, and which model is reported."""

    protocol: Literal["val-select", "test-best10"] = "val-select"
    normalisation: Literal["imagenet", "inception", "none"] = "imagenet"
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    tune_share: float = 0.2  # of the training pictures, where they are not divided yet
    report_share: float = 0.2  # of all pictures, where nothing else is said

    def __post_init__(self) -> None:
        splits.check_shares(tune_share=self.tune_share, report_share=self.report_share)


class Vtab(Task):
    """Classification of pictures."""

    version = 1
    output = "class"
    datasets = (*DATASETS, OWN)
    headline: ClassVar = dict.fromkeys(datasets, ("accuracy",))
    fields = Fields
    backbone = "vit"
    aliases = ALIASES
    apart = frozenset({OWN})

    def rules(self, run: Run) -> Rules:
        """All 1,000 are trained on in the end; which model is reported, the field `protocol` says."""
        name = f"vtab/{run.task.protocol} {run.dataset}, version {self.version}"
        if run.task.protocol == "val-select":
            return Rules(name, retrain=True)
        return Rules(name, "TEST-SELECTED: best of every 10 epochs on the report split", retrain=True, peek_epochs=10)

    def sources(self, run: Run) -> Mapping[str, Path]:
        """Split files and some of their pictures, or every folder of a class."""
        if given := run.choice.given:
            if folder := next((f"--{role} {path}" for role, path in given.items() if path.is_dir()), None):
                raise InputError(
                    f"{folder} is a folder: give a split file of lines `path label`, or pass --data FOLDER"
                )
            return given
        if run.choice.data is None:  # generated, or from the hub
            return {}
        place = files.place(run.choice.data, run.dataset)
        if files.is_pack(place):
            return files.pinned(place)
        return {f"class {folder.name}": folder for folder in files.class_folders(place)}

    def classes(self, run: Run) -> int:
        """The data set's, but a folder of class folders may have fewer."""
        if run.dataset == OWN:
            return len(files.class_folders(self._own(run)))
        known = DATASETS[run.dataset].classes
        if run.choice.given:
            return known
        if run.choice.data is None:
            return mini.classes(run.dataset) if run.choice.generated else known
        place = files.place(run.choice.data, run.dataset)
        found = known if files.is_pack(place) else len(files.class_folders(place))
        if found > known:
            raise InputError(
                f"{place} has {found} folders of pictures, and {run.dataset} {known} classes: give its own"
            )
        return found

    def load(self, run: Run) -> Data:
        """A pack's own splits; anything else is divided by the pictures' content."""
        if run.dataset == OWN:
            return self._divided({"data": self._own(run)}, run)
        if given := run.choice.given:
            return self._divided(given, run)
        if run.choice.data is None:
            pack = mini.pack(run.dataset) if run.choice.generated else files.from_hub(run.dataset)
            return self._of_pack(pack, run)
        place = files.place(run.choice.data, run.dataset)
        return self._of_pack(place, run) if files.is_pack(place) else self._divided({"data": place}, run)

    def _own(self, run: Run) -> Path:
        """The folder of class folders that is no published set."""
        if run.choice.data is None or run.choice.train or run.choice.eval:
            raise InputError("--dataset own is a folder of pictures for each class: pass --data FOLDER, and it alone")
        return files.place(run.choice.data, OWN)

    def _of_pack(self, pack: Path, run: Run) -> Data:
        """The splits of a pack, the third of which is the first two."""
        classes = self.classes(run)
        bad = {name: Tolerance(run.choice.skip_bad) for name in (*files.SPLITS, files.SHIFT)}
        parts = {name: files.split(path, classes, bad[name]) for name, path in files.split_files(pack).items()}
        sizes = files.SIZES | {"test": len(parts["test"]) if run.choice.generated else DATASETS[run.dataset].test}
        files.check(pack, parts, sizes, compare=not any(each.left_out for each in bad.values()))
        sampled = {name: splits.sample(part, run.choice.limit) for name, part in parts.items()}
        seen = {name: files.looked_at(part, bad[name]) for name, part in sampled.items() if name in _SHOWN}
        fit, tune, report, shift = (seen.get(name, []) for name in _SHOWN)
        whole = run.choice.generated or (len(fit) == sizes["train800"] and len(tune) == sizes["val200"])
        count = sum(map(len, parts.values()))
        told = f"pack {files.fingerprint(pack)}: {count} pictures, {files.formats(parts['test'])}"
        notes = [told, *omissions({name: each.left_out for name, each in bad.items()})]
        return Data(fit, tune, report, sizes["test"], notes, whole, shift)

    def _divided(self, given: Mapping[str, Path], run: Run) -> Data:
        """Fit and tune from one split file, report from the other; a single one, or class folders, become all three."""
        bad = {role: Tolerance(run.choice.skip_bad) for role in given}
        parts = {role: files.looked_at(self._pictures(path, run, bad[role]), bad[role]) for role, path in given.items()}
        notes = omissions({role: each.left_out for role, each in bad.items()})
        role = next(role for role in ("eval", "data", "train") if role in parts)
        report, train, count = parts[role], parts.get("train", []), len(parts[role])
        if len(parts) == 1 and run.divides(role):
            report, train = splits.divide(report, files.content, run.task.report_share)
            notes.append("one source: fit, tune and report are parts of it")
        elif shared := {p.path.resolve() for p in train} & {p.path.resolve() for p in report}:
            notes.append(f"{len(shared)} pictures of the report split are trained on too")
        tune, fit = splits.divide(train, files.content, run.task.tune_share)
        fit, tune, report = (splits.sample(part, run.choice.limit) for part in (fit, tune, report))
        if run.dataset == OWN:
            return Data(fit, tune, report, count, notes)
        whole = len(fit) + len(tune) == files.SIZES["train800val200"]
        return Data(fit, tune, report, max(len(report), DATASETS[run.dataset].test), notes, whole)

    def _pictures(self, path: Path, run: Run, bad: Tolerance) -> list[Picture]:
        if path.is_dir():
            return files.from_folders(files.class_folders(path))
        return files.split(path, self.classes(run), bad)

    def reader(self, tokenizer: Any, run: Run) -> Any:
        """Pictures squashed as the fields say."""
        from tasks.outputs.classes import ClassReader

        f: Fields = run.task
        return ClassReader(replace(tokenizer, interpolation=f.interpolation, normalisation=f.normalisation))

    def oracle(self, fit: Sequence[Picture], examples: Sequence[Picture], reader: Any, run: Run) -> Sequence[int]:
        """The labels."""
        return [shown.label for shown in examples]

    def majority(self, fit: Sequence[Picture], examples: Sequence[Picture], reader: Any, run: Run) -> Sequence[int]:
        """The most frequent class; of equal ones the first."""
        counts = Counter(shown.label for shown in fit)
        return [max(sorted(counts), key=counts.__getitem__)] * len(examples)

    def records(self, examples: Sequence[Picture], predictions: Sequence[int], run: Run) -> list[Record]:
        """The class said, the class shown, and whether they are one."""
        return [
            {"id": shown.id, "prediction": said, "label": shown.label, "correct": said == shown.label}
            for shown, said in zip(examples, predictions, strict=True)
        ]

    def metrics(self, records: Sequence[Record], dataset: str) -> dict[str, Score]:
        """Top-1 accuracy in per cent."""
        value = 100.0 * sum(record["correct"] for record in records) / len(records)
        return {"accuracy": Score.of(value, self.terms(records, "accuracy"))}

    def terms(self, records: Sequence[Record], metric: str) -> list[Term] | None:
        """Right or wrong."""
        return [Term(100.0 * record["correct"]) for record in records] if metric == "accuracy" else None

    def summary(self, scores: Mapping[str, float]) -> Mapping[str, float | None]:
        """Means of the groups, their mean, and the mean of the nineteen."""
        return means.summary(scores)

    def score(self, predictions: Path, references: Path) -> dict[str, Any]:
        """Accuracy of lines `path label` against a split file; what has no prediction is wrong."""
        labels = {picture.id: picture.label for picture in files.split(references)}
        said = {picture.id: picture.label for picture in files.split(predictions)}
        if unknown := [name for name in said if name not in labels]:
            raise InputError(f"{predictions}: {unknown[0]} is not in {references}: predict its pictures alone")
        if missing := len(labels) - len(said):
            print(f"{missing} of {len(labels)} pictures have no prediction and count as wrong", file=sys.stderr)
        return {"accuracy": 100.0 * sum(said.get(name) == label for name, label in labels.items()) / len(labels)}


_SHOWN = ("train800", "val200", "test", files.SHIFT)
"""The splits of a pack that fit, tune, report and shift are."""


if __name__ == "__main__":
    from tasks.bench.commandline import main

    raise SystemExit(main("vtab"))
