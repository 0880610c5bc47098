"""A cell from its configuration to its records: every method, saved adapters, and what its row says."""

import json

import pytest
import torch

import zeroinit
from tasks.bench import evaluate
from tasks.bench import task as tasks
from tasks.bench.errors import CellError, InputError
from tasks.bench.run import run
from tasks.bench.store import Store
from zeroinit import methods


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


def report(store: Store, name: str) -> dict[str, dict]:
    return {row["metric"]: row for row in store.rows_of(name) if row["split"] == "report"}


@pytest.mark.parametrize("method", sorted({*methods.names()} - {"vpt"}))
def test_every_method_runs_from_the_frozen_host(method, small_run, store):
    config = small_run(method)
    cell = run(config, store)
    facts = cell.result["facts"]
    assert (facts["step0_distance"] == 0.0) == config.method.starts_closed()
    assert config.method.starts_closed() == (method not in ("prefix", "prompt", "rand_init"))
    assert facts["trainable_params"] >= facts["head_params"] > 0
    assert facts["total_params"] >= facts["trainable_params"]
    assert len(cell.log["loss"]) == 2
    assert (store.cells / config.cell / "adapter" / "adapter_config.json").is_file()
    assert set(report(store, config.cell)) == {"exact_match", "f1"}


def test_a_method_for_pictures_is_refused_with_the_reason(small_run, store):
    with pytest.raises(InputError, match=r"vpt does not fit: .* is no plain ViT of timm"):
        run(small_run("vpt"), store)


def test_frozen_trains_nothing_and_keeps_no_adapter(small_run, store):
    config = small_run("frozen")
    cell = run(config, store)
    assert (cell.result["facts"]["trainable_params"], cell.log["loss"]) == (0, [])
    assert not (store.cells / config.cell / "adapter").exists()
    assert report(store, config.cell)["f1"]["status"] == "done"


def test_the_row_counts_what_it_left_out(small_run, store):
    name = run(small_run(limit=3), store).name
    row = report(store, name)["f1"]
    assert (row["n"], row["n_expected"], row["status"], row["n_fit"]) == (3, 30, "partial", 3)


@pytest.mark.parametrize("dataset", ["v1.1", "v2.0"])
def test_numbers_follow_from_the_records_alone(dataset, small_run, store):
    name = run(small_run(dataset=dataset), store).name
    for split in ("report", "fit"):
        again = tasks.get("squad").metrics(store.records(name, split), dataset)
        rows = {row["metric"]: row for row in store.rows_of(name) if row["split"] == split}
        assert {key: score.value for key, score in again.items()} == {key: row["value"] for key, row in rows.items()}
        assert len(store.records(name, split)) == rows["f1"]["n"]
    assert ("best_exact" in again) == (dataset == "v2.0")
    assert not any("context" in record or "question" in record for record in store.records(name, "report"))


def test_the_world_serves_where_no_file_is_given(small_run, store):
    config = small_run("head", eval=None, dataset="v2.0")
    run(config, store)
    assert {"NoAns_exact", "HasAns_f1"} <= set(report(store, config.cell))
    assert any(record["null_score"] for record in store.records(config.cell, "report"))


def test_a_saved_adapter_answers_as_it_did(small_run, store, training_file):
    trained = small_run("lora", train=training_file, settings={"steps": 6, "learning_rate": 0.05})
    run(trained, store)
    folder = store.cells / trained.cell / "adapter"
    again = small_run("zero_init", adapter=folder)  # the adapter's own method is taken
    assert (again.choice.method, again.trains) == ("lora", False)
    run(again, store)
    frozen = small_run("frozen")
    run(frozen, store)
    said, before, unadapted = (store.records(c.cell, "report") for c in (again, trained, frozen))
    assert said == before
    assert said != unadapted
    assert report(store, again.cell)["f1"]["step0_distance"] == ""


def test_the_same_seed_gives_the_same_records(small_run, tmp_path):
    one, other = (run(small_run(), Store(tmp_path / name)) for name in ("one", "other"))
    assert one.records == other.records
    assert one.log == other.log


def test_a_model_that_diverges_leaves_no_cell(small_run, store, monkeypatch):
    config = small_run("full", settings={"learning_rate": 1e30, "clip": 1e30, "steps": 5})
    with pytest.raises(CellError, match="lower learning_rate"):
        run(config, store)
    assert store.state(config.cell) == "missing"


def test_a_method_that_should_start_closed_and_does_not_is_found_out(small_run, store, monkeypatch):
    monkeypatch.setattr(methods.get("rand_init"), "starts_closed", lambda self: True)
    with pytest.raises(CellError, match=r"attaching rand_init moved the outputs by .*, where it must change nothing"):
        run(small_run("rand_init"), store)
    assert not store.names()


def test_what_was_not_planted_must_not_train(small_run, store, monkeypatch):
    planted = zeroinit.trainable
    monkeypatch.setattr(zeroinit, "trainable", lambda model: dict(list(planted(model).items())[1:]))
    with pytest.raises(CellError, match="1 parameters would train that were not planted, first "):
        run(small_run("lora"), store)


def test_a_method_that_does_not_fit_is_refused(small_run, store):
    with pytest.raises(InputError, match="--method zero_init does not fit: "):
        run(small_run(settings={"method.layers": 99}), store)


def test_a_backbone_without_the_output_is_refused(small_run, store, monkeypatch):
    from tasks.backbones import roberta

    monkeypatch.setattr(roberta, "OUTPUTS", {"lm": roberta.span})
    with pytest.raises(InputError, match="--backbone roberta gives lm, but squad asks for span"):
        run(small_run(), store)


def test_predictions_do_not_depend_on_the_batch(small_run, squad_file):
    from tasks.bench.run import build

    config = small_run("frozen")
    task = tasks.get("squad")
    data = task.load(config)
    torch.manual_seed(0)
    host = build(config, task.output)
    reader = task.reader(host.tokenizer, config)
    one, many = (evaluate.evaluate(host.model, reader, data.report, size) for size in (1, 16))
    assert [span.text for span in one] == [span.text for span in many]
    assert [span.score for span in one] == pytest.approx([span.score for span in many], abs=1e-5)


def test_configurations_and_facts_are_plain_json(small_run, store):
    name = run(small_run(), store).name
    text = (store.cells / name / "config.json").read_text() + (store.cells / name / "result.json").read_text()
    assert "NaN" not in text
    assert json.loads((store.cells / name / "config.json").read_text())["settings"]["training"]["threads"] == 1


def test_gates_are_kept_over_training(small_run, store):
    cell = run(small_run("zero_init"), store)
    steps, found = zip(*cell.log["gates"], strict=True)
    assert steps == (1, 2)
    assert all(len(layers) == 4 for layers in found)
    assert any(abs(value) > 0 for layer in found[-1].values() for value in layer)
    assert "gates" not in run(small_run("lora"), store).log
