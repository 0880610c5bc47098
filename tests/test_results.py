"""The committed results: every number follows from its records, every file from its cells, and README says the same."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from markdown_it import MarkdownIt

from tasks.bench import sources
from tasks.bench.report import report
from tasks.bench.store import Store
from tasks.bench.suite import plan, read
from tasks.bench.verify import verified

ROOT = Path(__file__).parents[1]
SNAPSHOTS = sorted({path.parent.name for path in ROOT.glob("results/*/cells")} - {"local"})

RATES = {"mini": "mini_rates", "mini-all": "mini_rates", "pocket": "pocket_rates"}
"""Suites, and those that chose their learning rates on the tune split."""

COLUMNS = {
    "SQuAD F1": ("squad", "v1.1", "f1"),
    "SQuAD EM": ("squad", "v1.1", "exact_match"),
    "F1": ("squad", "v1.1", "f1"),
    "SQuAD v1.1": ("squad", "v1.1", "exact_match"),
    "v2.0": ("squad", "v2.0", "exact"),
    "photographs": ("vtab", "cifar", "accuracy"),
    "digits": ("vtab", "svhn", "accuracy"),
    "slopes": ("vtab", "eurosat", "accuracy"),
    "relief": ("vtab", "diabetic_retinopathy", "accuracy"),
    "counting": ("vtab", "clevr_count", "accuracy"),
    "nearest": ("vtab", "clevr_dist", "accuracy"),
    "place": ("vtab", "dsprites_loc", "accuracy"),
    "turn": ("vtab", "dsprites_ori", "accuracy"),
    "DTD-10": ("vtab", "dtd", "accuracy"),
    "Alpaca NLL ↓": ("instruct", "alpaca", "nll"),
    "ScienceQA": ("scienceqa", "all", "accuracy"),
    "ScienceQA, text": ("scienceqa", "text", "accuracy"),
    "captions, CIDEr": ("coco_caption", "coco", "cider"),
}
"""Of README's tables, and what they hold."""


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_numbers_follow_from_records(name):
    assert verified(Store(ROOT / "results" / name))


@pytest.mark.slow
@pytest.mark.parametrize("name", SNAPSHOTS)
def test_files_follow_from_cells(name, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "changed", lambda recorded: [])  # the code goes on; these are of the commit they name
    committed, again = ROOT / "results" / name, tmp_path / name
    shutil.copytree(committed, again)
    for path in again.iterdir():
        if path.is_file():
            path.unlink()
    report(read(name), Store(again), pictures=False)
    (again / f"{name}.html").unlink()
    files = sorted(path.name for path in committed.iterdir() if path.is_file())
    assert files == sorted(path.name for path in again.iterdir() if path.is_file())
    assert [each for each in files if (committed / each).read_bytes() != (again / each).read_bytes()] == []


@pytest.mark.parametrize(("name", "chooser"), RATES.items())
def test_rates_are_those_that_were_chosen(name, chooser):
    rows = pd.read_csv(ROOT / "results" / chooser / "results.csv").drop_duplicates("cell")
    chosen = rows.set_index(["task", "method", "dataset"]).learning_rate.sort_index()
    for run in plan(read(name), {}, {}):
        if run.trains:
            tried = chosen[run.choice.task, run.choice.method]
            # A set that was not tried takes what was chosen most often on its task's.
            assert run.training.learning_rate == tried.get(run.dataset, tried.mode().iloc[0]), run.cell


@pytest.mark.parametrize(
    ("section", "name"),
    [("## What the embedded suite says", "mini"), ("### All methods", "mini-all"), ("## What we found", "pocket")],
)
def test_readme_says_what_was_measured(section, name):
    rows = pd.read_csv(ROOT / "results" / name / "results.csv")
    seen = 0
    for line, method, column, told in _figures(section):
        if column in COLUMNS and told:
            task, dataset, metric = COLUMNS[column]
            one = (rows.task == task) & (rows.dataset == dataset) & (rows.metric == metric) & (rows.split == "report")
            found = rows[one & (rows.method == method)].value
            digits = len(told.split()[0].partition(".")[2])
            wanted = f"{found.mean():.{digits}f}" + (f" ± {found.std():.{digits}f}" if "±" in told else "")
            assert told == wanted, line
            seen += 1
    assert seen > 25


def test_readme_counts_the_architectures():
    table = pd.read_csv(ROOT / "results" / "architectures.csv")
    exact = table[table.status == "exact"].library.value_counts()
    told = f"{exact['transformers']} model classes and towers of transformers and {exact['timm']} models of timm"
    assert told in " ".join((ROOT / "README.md").read_text().split())


def _figures(section: str):
    """Line, method, column and figure of the first table of a section."""
    text = (ROOT / "README.md").read_text().split(section)[1]
    tokens = MarkdownIt().enable("table").parse(text)
    first = next(place for place, token in enumerate(tokens) if token.type == "table_open")
    last = next(place for place, token in enumerate(tokens) if token.type == "table_close")
    cells = [token.content for token in tokens[first:last] if token.type == "inline"]
    width = sum(token.type == "th_open" for token in tokens[first:last])
    head, *body = [cells[at : at + width] for at in range(0, len(cells), width)]
    for line in body:
        method = {"most frequent of fit": "majority"}.get(line[0], line[0].split(",")[0])
        yield from ((line, method, column, told) for column, told in zip(head[1:], line[1:], strict=True))
