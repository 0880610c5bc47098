"""Numbers of others: complete, labeled, and their printed means are what our functions make of their values."""

import csv
from collections import defaultdict
from pathlib import Path

import pytest

from tasks._vtab_sets import DATASETS, GROUPS
from tasks.bench import task as tasks
from tasks.metrics import vtab_means as means

FILE = Path(__file__).parents[2] / "results/published.csv"
MEANS = (*GROUPS, "mean_of_groups", "mean_of_19")


@pytest.fixture(scope="module")
def published() -> list[dict[str, str]]:
    with FILE.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def vtab(published) -> dict[str, dict[str, float]]:
    """The nineteen accuracies of each method."""
    found = defaultdict(dict)
    for row in published:
        if row["task"] == "vtab" and row["dataset"] in DATASETS:
            assert row["dataset"] not in found[row["method"]]
            found[row["method"]][row["dataset"]] = float(row["value"])
    return found


def printed(published, source: str | None = None) -> dict[tuple[str, str], float]:
    return {
        (row["method"], row["dataset"]): float(row["value"])
        for row in published
        if row["task"] == "vtab" and row["dataset"] in MEANS and ("table 6" in row["source"]) == bool(source)
    }


def test_every_row_says_what_it_is_and_where_from(published):
    assert {row["task"] for row in published} == {"vtab", "squad", "scienceqa", "coco_caption", "instruct"}
    for row in published:
        assert row["source"]
        assert row["selection"]
        float(row["value"])
        if row["task"] == "vtab":
            assert row["weights"]
            assert row["normalisation"]
    keys = [tuple(row[key] for key in ("task", "dataset", "metric", "method", "source")) for row in published]
    assert len(set(keys)) == len(keys)
    assert {row["metric"] for row in published if row["task"] == "vtab"} == {"accuracy", "trainable_params_millions"}


def values(published, **wanted) -> dict[str, float]:
    """A method's numbers by metric."""
    return {r["metric"]: float(r["value"]) for r in published if all(r[key] == value for key, value in wanted.items())}


def test_data_sets_are_named_and_scaled_as_our_cells_are(published):
    for row in published:
        known = tasks.get(row["task"]).datasets
        assert row["dataset"] in known or (row["task"] == "vtab" and row["dataset"] in (*MEANS, "all")), row
        if row["metric"] in ("bleu4", "cider", "meteor", "spice"):
            assert 10 < float(row["value"]) < 200, "captions are scored times 100"


def test_what_the_paper_says_of_efficiency_captions_and_layers_is_there(published):
    table = {"task": "instruct", "source": "LLaMA-Adapter, ICLR 2024, table 1; arXiv v1, table 3"}
    assert values(published, method="LLaMA-Adapter", **table) == {
        **{"trainable_params_millions": 1.2, "storage_megabytes": 4.7, "training_hours": 1.0},
    }
    assert values(published, method="Alpaca-LoRA", **table)["training_hours"] == 1.5
    assert values(published, task="coco_caption", method="LLaMA-Adapter V2") == {"bleu4": 36.2, "cider": 122.2}
    depth = "LLaMA-Adapter, prompts in the last {} layers"
    found = [values(published, method=depth.format(layers))["accuracy"] for layers in (10, 20, 30, 32)]
    assert found == [55.95, 73.36, 83.85, 81.03]
    ablations = {r["selection"] for r in published if "an ablation" in r["note"]}
    assert ablations == {"reported on the validation split, not on test"}


def test_all_nineteen_of_25_methods_are_there(vtab):
    assert len(vtab) == 25
    assert all(set(scores) == set(DATASETS) for scores in vtab.values())


def test_the_means_of_every_row_are_reproduced(vtab, published):
    for (method, name), value in printed(published).items():
        assert means.summary(vtab[method])[name] == pytest.approx(value, abs=0.00501), (method, name)
    assert len(printed(published)) == 5 * len(vtab)


def test_the_means_that_papers_state_are_reproduced_within_their_rounding(vtab, published):
    stated = printed(published, "table 6")
    assert len(stated) == 15
    for (method, name), value in stated.items():
        assert means.summary(vtab[method])[name] == pytest.approx(value, abs=0.04), (method, name)


@pytest.mark.parametrize(
    ("method", "groups", "sets"),
    [
        ("SSF", 75.69, 73.10),
        ("NOAH", 75.48, 73.25),
        ("Convpass", 76.56, 74.45),
        ("Zero-init (LLaMA-Adapter)", 74.32, 71.80),
    ],
)
def test_the_two_means_differ_and_change_the_order(method, groups, sets, vtab):
    assert means.mean_of_groups(vtab[method]) == pytest.approx(groups, abs=0.005)
    assert means.mean_of_19(vtab[method]) == pytest.approx(sets, abs=0.005)


def test_a_mean_of_less_than_all_is_withheld(vtab):
    scores = {name: value for name, value in vtab["SSF"].items() if name != "kitti"}
    found = means.summary(scores)
    assert found["natural"] == pytest.approx(81.57, abs=0.005)
    assert [found[name] for name in ("structured", "mean_of_groups", "mean_of_19")] == [None] * 3
    assert set(means.summary({}).values()) == {None}
    assert tasks.get("vtab").summary(vtab["SSF"]) == means.summary(vtab["SSF"])


def test_zero_init_beats_vpt_on_sixteen_sets(vtab):
    ours, theirs = vtab["Zero-init (LLaMA-Adapter)"], vtab["VPT-Deep (as reprinted)"]
    assert {name for name in DATASETS if ours[name] <= theirs[name]} == {"eurosat", "smallnorb_azi", "smallnorb_ele"}
