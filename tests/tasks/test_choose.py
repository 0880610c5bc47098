"""What is chosen: learning rates on the tune split, and, for comparison alone, the best look at the report split."""

from dataclasses import replace

import pytest
import torch

from tasks import squad
from tasks.bench import choose
from tasks.bench import run as bench
from tasks.bench.config import Training, resolve
from tasks.bench.errors import CellError, InputError
from tasks.bench.run import run
from tasks.bench.settings import parse_settings
from tasks.bench.store import Store
from tasks.bench.suite import plan, read
from tasks.bench.train import share_of_rate, train
from zeroinit import methods


@pytest.fixture
def gridded(small_run):
    return small_run(settings={"grid": [1e-2, 1e-4, 1e-3]})


def test_the_best_rate_is_chosen_and_the_smaller_of_equals(gridded):
    values = {1e-4: 1.0, 1e-3: 5.0, 1e-2: 5.0}
    found = choose.learning_rate(gridded, lambda trial: (values[trial.training.learning_rate], None))
    assert found.run.training.learning_rate == 1e-3
    assert [trial.learning_rate for trial in found.trials] == [1e-4, 1e-3, 1e-2]


def test_a_score_below_zero_can_be_the_best(gridded):
    found = choose.learning_rate(gridded, lambda trial: (-1 / trial.training.learning_rate, None))
    assert found.run.training.learning_rate == 1e-2


def test_a_rate_that_diverges_is_a_trial_without_a_value(gridded):
    def attempt(trial):
        if trial.training.learning_rate > 1e-4:
            raise CellError("the loss is nan")
        return 1.0, None

    found = choose.learning_rate(gridded, attempt)
    assert found.run.training.learning_rate == 1e-4
    assert [trial.value for trial in found.trials] == [1.0, None, None]
    with pytest.raises(CellError, match="training fails with each learning rate"):
        choose.learning_rate(replace(gridded, training=replace(gridded.training, grid=(1e-2,))), attempt)


@pytest.mark.parametrize("method", ["lora", "frozen"])
def test_without_a_grid_or_training_nothing_is_tried(method, small_run):
    config = small_run(method, settings={"grid": [1.0]} if method == "frozen" else {})
    assert choose.learning_rate(config, lambda _: (0.0, None)) == (config, (), None)


def test_the_row_says_what_was_chosen_from(small_run, training_file, tmp_path):
    config = small_run("head", train=training_file, settings={"grid": [1e-5, 0.1], "steps": 12})
    store = Store(tmp_path / "r")
    cell = run(config, store)
    row = store.rows_of(config.cell)[0]
    best = max(cell.log["trials"], key=lambda trial: trial["value"])
    assert (row["grid"], row["trials"], row["selection"]) == ("[1e-05, 0.1]", 2, "learning rate on tune, last step")
    assert row["learning_rate"] == best["learning_rate"]
    assert cell.config == config.identity
    plain = small_run("head", train=training_file, settings={"learning_rate": best["learning_rate"], "steps": 12})
    assert run(plain, store).records == cell.records


def test_the_best_trial_is_kept_and_not_trained_again(small_run, training_file, tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(bench, "train", lambda *given, **more: trained.append(given[4]) or train(*given, **more))
    config = small_run("lora", train=training_file, settings={"grid": [1e-4, 1e-2], "tune_limit": 3, "steps": 8})
    cell = run(config, Store(tmp_path))
    assert [training.learning_rate for training in trained] == [1e-4, 1e-2]
    assert len(cell.log["loss"]) == 8


def test_a_rate_at_the_end_of_its_grid_is_told(gridded):
    def best(wanted):
        found = choose.learning_rate(gridded, lambda trial: (-abs(trial.training.learning_rate - wanted), None))
        return found.note

    assert best(1e-3) is None
    assert best(1e-2) == "the best learning rate, 0.01, is at the end of its grid"
    assert "0.0001" in best(1e-4)


@pytest.mark.parametrize("method", methods.names())
def test_every_method_declares_as_many_rates_as_any_other(method, small_run):
    config = small_run(method, settings={"grid": "declared"})
    assert len(set(config.training.rates)) == 3
    assert config.identity["settings"]["training"]["grid"] == methods.get(method).rates


def test_a_suite_that_tunes_one_method_more_than_another_is_refused(tmp_path, small_run):
    path = tmp_path / "unfair.toml"
    path.write_text(
        '[[grid]]\ntasks = ["squad"]\nbackbones = ["roberta"]\nmethods = ["lora", "full", "frozen"]\n'
        '[[set]]\nwhen = { method = "lora" }\ngrid = "declared"\n'
    )
    with pytest.raises(InputError, match="lora chooses from 3 learning rates and full from 1: give each method the"):
        plan(read(str(path)), {}, {})
    assert len(plan(read(str(path)), {}, {"grid": "declared"})) == 3
    path.write_text(f"{path.read_text()}[[set]]\nwhen = {{ method = 'full' }}\ngrid = [1e-3, 1e-3, 1e-3]\n")
    with pytest.raises(InputError, match="lora chooses from 3 learning rates and full from 1: "):
        plan(read(str(path)), {}, {})


def test_a_grid_without_a_tune_split_is_refused(small_run, tmp_path):
    with pytest.raises(InputError, match="from on the tune split, which is empty"):
        run(small_run(settings={"grid": [1.0], "tune_share": 0.0}), Store(tmp_path))


@pytest.mark.parametrize("setting", ["grid=[0.0]", "grid=[-1e-3]", 'grid=["a"]', "epochs=-1", "schedule=steps"])
def test_a_senseless_setting_is_refused(setting, small_run):
    with pytest.raises(InputError, match=setting.partition("=")[0]):
        small_run(settings=parse_settings([setting]))


def test_epochs_are_counted_in_rows_and_a_later_setting_of_steps_wins(small_run):
    assert Training(epochs=3, batch_size=16).over(33).steps == 9
    assert Training(steps=7).over(33).steps == 7
    choice = small_run("lora").choice
    assert resolve(choice, {"epochs": 3}, {"steps": 5}).training.epochs is None
    assert resolve(choice, {"steps": 5}, {"epochs": 3}).training.epochs == 3
    assert resolve(choice, {"epochs": 3}).trains
    assert not resolve(choice, {"steps": 5}, {"epochs": 0}).trains


def test_the_cosine_falls_to_zero_behind_the_warm_up():
    training = Training(steps=110, warmup=10 / 110, schedule="cosine")
    shares = [share_of_rate(step, training) for step in range(110)]
    assert shares[10] == 1.0
    assert shares[60] == pytest.approx(0.5)
    assert shares[35] == pytest.approx(0.853553, abs=1e-6)
    assert 0 < shares[109] < 1e-3


def test_looking_keeps_the_first_of_the_best_and_puts_it_back():
    weight = torch.nn.Parameter(torch.zeros(()))
    values = iter([1.0, 4.0, 4.0, 2.0])
    peeks = choose.Peeks(10, lambda: next(values), {"weight": weight})
    for epoch in range(1, 41):
        weight.data.fill_(epoch)
        peeks(epoch)
    assert peeks.seen == [(10, 1.0), (20, 4.0), (30, 4.0), (40, 2.0)]
    peeks.restore()
    assert weight.item() == 20
    with pytest.raises(InputError, match="train for epochs=10 or more"):
        choose.Peeks(10, lambda: 0.0, {}).restore()


def test_looks_at_the_report_split_are_off_the_clock_and_in_the_log(small_run, training_file, tmp_path, monkeypatch):
    from tasks.bench.task import Rules

    rules = Rules("squad/best-dev", "best of every 2 epochs on the report split", peek_epochs=2)
    monkeypatch.setattr(squad.Squad, "rules", lambda *_: rules)
    config = small_run("head", train=training_file, settings={"epochs": 4, "learning_rate": 0.1})
    store = Store(tmp_path / "r")
    cell = run(config, store)
    assert [epoch for epoch, _ in cell.log["peeks"]] == [2, 4]
    row = next(row for row in store.rows_of(cell.name) if row["split"] == "report")
    assert (row["selection"], row["protocol"]) == (rules.selection, rules.name)
    assert row["value"] == max(value for _, value in cell.log["peeks"])
