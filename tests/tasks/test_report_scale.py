"""Ten thousand cells are reported within seconds of one core and one gigabyte."""

import gzip
import json
import random
import sys

import pytest

from tasks._vtab_sets import DATASETS
from tests.tasks.fabricated import cell, suite, vtab_records
from tests.tasks.test_many import assert_quick

METHODS = ("full", "head", "bitfit", "lora", "ia3", "adapter", "prefix", "prompt", "vpt", "rand_init", "zero_init")
SEEDS = 48
EXAMPLES = 40


def fill(root) -> int:
    """19 data sets x 11 methods x 48 seeds, each with 40 records and the losses of 200 steps."""
    draw = random.Random(0)
    logs = json.dumps({"loss": [4.0 - 0.01 * step for step in range(200)], "trials": [], "peeks": []})
    count = 0
    for dataset in DATASETS:
        for place, method in enumerate(METHODS):
            made = cell(method, 0, vtab_records([1] * EXAMPLES), task="vtab", dataset=dataset, backbone="vit")
            for seed in range(SEEDS):
                hits = [int(draw.random() < 0.3 + 0.04 * place) for _ in range(EXAMPLES)]
                folder = root / "cells" / made.name.replace("-s0-", f"-s{seed}-")
                folder.mkdir(parents=True)
                result = json.loads(json.dumps(made.result))
                result["splits"]["report"]["scores"]["accuracy"][0] = 100 * sum(hits) / EXAMPLES
                lines = "".join(json.dumps(record) + "\n" for record in vtab_records(hits))
                (folder / "config.json").write_text(json.dumps({**made.config, "seed": seed}))
                (folder / "result.json").write_text(json.dumps(result))
                (folder / "log.json").write_text(logs)
                (folder / "report.jsonl.gz").write_bytes(gzip.compress(lines.encode(), 1))
                count += 1
    return count


@pytest.mark.slow
def test_ten_thousand_cells_take_ten_seconds_and_a_gigabyte(tmp_path):
    store = tmp_path / "store"
    assert fill(store) == 10_032
    text = (
        f'tier = "mini"\n[[grid]]\ntasks = ["vtab"]\ndatasets = {json.dumps(list(DATASETS))}\nbackbones = ["vit"]\n'
        f"methods = {json.dumps(METHODS)}\nseeds = {list(range(SEEDS))}\n"
        "[[set]]\nsteps = 200\nbatch_size = 16\nlearning_rate = 1e-3\n"
    )
    where = [str(suite(tmp_path / "many.toml", text)), "--results", str(store)]
    assert_quick([sys.executable, "-m", "tasks", "report", *where], store, "10032 cells: 10032 done.")
    assert (store / "report.html").stat().st_size < 20 * 2**20
