"""VTAB: accuracy counted by hand, and the two means of published rows as their authors print them."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from tasks._vtab_files import Picture
from tasks._vtab_sets import DATASETS, OWN
from tasks.bench.golden import Case, scored
from tasks.metrics import vtab_means

LABELS, SAID = (0, 1, 2, 3, 4, 0, 0, 1), (0, 1, 2, 4, 3, 0, 1, 1)
OFFICIAL = {"accuracy": 62.5}
"""Five of eight."""

CONVPASS = (
    *(72.29, 91.16, 72.18, 99.15, 90.90, 91.26, 54.87),
    *(84.19, 96.13, 85.32, 75.60),
    *(82.26, 67.86, 51.31, 80.03, 85.94, 53.13, 36.43, 44.44),
)
CONVPASS_MEANS = {"natural": 81.69, "specialized": 85.31, "structured": 62.68, "mean_of_groups": 76.56}
SSF = (
    *(69.0, 92.6, 75.1, 99.4, 91.8, 90.2, 52.9),
    *(87.4, 95.9, 87.4, 75.5),
    *(75.9, 62.3, 53.3, 80.6, 77.3, 54.9, 29.5, 37.9),
)
SSF_MEANS = {"natural": 81.57, "specialized": 86.55, "structured": 58.96, "mean_of_19": 73.10}


def _metric() -> Mapping[str, float]:
    from tasks.metrics.vtab import Vtab

    return Vtab().compute(predictions=list(SAID), references=list(LABELS)) or {}


def _means(accuracies: tuple[float, ...]) -> Mapping[str, float | None]:
    return vtab_means.summary(dict(zip(DATASETS, accuracies, strict=True)))


_SHOWN = [Picture(f"{n}.png", Path(f"{n}.png"), label) for n, label in enumerate(LABELS)]

CASES = (
    Case("accuracy", "a count by hand", OFFICIAL, partial(scored, "vtab", "cifar", _SHOWN, SAID), (*DATASETS, OWN)),
    Case("accuracy by evaluate", "a count by hand", OFFICIAL, _metric),
    Case("mean of groups", "the table of Convpass", CONVPASS_MEANS, partial(_means, CONVPASS), tolerance=0.00501),
    Case("mean of nineteen", "the table of SSF", SSF_MEANS, partial(_means, SSF), tolerance=0.00501),
)
