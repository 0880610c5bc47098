"""A cell's name is a hash of what its numbers depend on, and a wrong setting names the right ones."""

import json
import pickle
import shutil

import pytest

from tasks.bench import discover
from tasks.bench.config import Choice, resolve, settle
from tasks.bench.errors import InputError
from tasks.bench.settings import parse_settings
from tasks.bench.suite import plan, read


def test_a_file_counts_by_its_content_not_its_place(small_run, squad_file, tmp_path):
    moved = tmp_path / "elsewhere" / squad_file.name
    moved.parent.mkdir()
    shutil.copy(squad_file, moved)
    assert small_run().cell == small_run(eval=moved).cell
    moved.write_text(moved.read_text().replace("Orlo", "Oslo"))
    assert small_run().cell != small_run(eval=moved).cell


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"limit": 5},
        {"method": "lora"},
        {"dataset": "v2.0"},
        {"settings": {"learning_rate": 0.5}},
        {"settings": {"method.length": 3}},
        {"settings": {"n_best": 3}},
    ],
)
def test_whatever_a_number_depends_on_changes_the_cell(small_run, change):
    assert small_run(**change).cell != small_run().cell


def test_equal_values_written_differently_are_one_cell(small_run):
    one = small_run(settings=parse_settings(["learning_rate=1e-2", "length=8"]))
    other = small_run(settings=parse_settings(["training.learning_rate=0.01", "method.length=8.0"]))
    assert one.cell == other.cell


def test_no_path_is_part_of_a_configuration(small_run, squad_file):
    assert str(squad_file.parent) not in str(small_run().identity)
    assert small_run().identity["sources"]["eval"].startswith("small.json#")


def test_a_run_travels_to_another_process(small_run):
    run = small_run()
    name = run.cell
    assert pickle.loads(pickle.dumps(run)).cell == name


def test_the_tier_sets_what_the_suite_of_its_name_says(small_run):
    assert small_run().method.length == 8
    assert small_run(tier="pocket").method.length == 16
    assert small_run(tier="pocket").training.learning_rate == 1e-1
    assert small_run("full", tier="pocket").training.learning_rate == 3e-4


@pytest.mark.parametrize(
    ("pairs", "sentence"),
    [
        (["lenght=3"], r"there is no setting 'lenght': the known ones are .*method\.length.*training\.steps"),
        (["steps=many"], "the setting training.steps is 'many', which is not int"),
        (["steps=2.5"], r"the setting training.steps is 2\.5, which is not int"),
        (["steps=true"], "the setting training.steps is True, which is not int"),
        (["method.gate=open"], "the setting method.gate is 'open', which is not"),
        (["batch_size=0"], "batch_size is 0: give a number above 0"),
        (["learning_rate=nan"], "learning_rate is nan: give a number above 0"),
        (["null_threshold=nan"], "the setting task.null_threshold is nan: give a finite number"),
        (["clip=inf"], "the setting training.clip is inf: give a finite number"),
        (["grid=[1e-3, inf]"], r"the setting training.grid is \(0.001, inf\): give a finite number"),
        (["method.gate_init=-inf"], "the setting method.gate_init is -inf: give a finite number"),
        (["warmup=2"], "warmup is 2.0: give a share from 0 to 1"),
        (["doc_stride=64"], "doc_stride is 64: give less than half of max_length"),
        (["tune_share=1"], "tune_share is 1.0: give a share from 0 up to 1"),
        (["steps"], "--set 'steps' is not KEY=VALUE"),
        (["=3"], "--set '=3' is not KEY=VALUE"),
    ],
)
def test_a_wrong_setting_is_one_sentence(small_run, pairs, sentence):
    with pytest.raises(InputError, match=sentence):
        small_run(settings=parse_settings(pairs))


@pytest.mark.parametrize(("task", "pair"), [("vtab", "normalisation=none"), ("squad", "gate=none")])
def test_none_may_be_a_choice(task, pair):
    run = resolve(settle(Choice(task, "vit", "zero_init")), parse_settings([pair]))
    assert getattr(run.task if task == "vtab" else run.method, pair.partition("=")[0]) == "none"


def test_a_name_in_two_groups_must_say_which(small_run):
    with pytest.raises(InputError, match=r"'dropout' could be any of training\.dropout, method\.dropout"):
        small_run("lora", settings={"dropout": 0.1})
    run = small_run("lora", settings={"method.dropout": 0.1})
    assert (run.method.dropout, run.training.dropout) == (0.1, 0.0)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"tier": "huge"}, "--tier 'huge' does not exist: choose one of mini, pocket, paper"),
        ({"dataset": "v3"}, "--dataset 'v3' does not exist: choose one of v1.1, v2.0"),
        ({"method": "magic"}, "there is no method 'magic': choose one of .*frozen.*zero_init"),
        ({"limit": 0}, "--limit is 0: give 1 or more"),
        ({"seed": -1}, "--seed is -1: give a whole number from 0 to 4294967295"),
        ({"seed": 2**32}, "--seed is 4294967296: give"),
        ({"device": "abacus"}, "--device abacus is not available: choose one of auto, cpu"),
    ],
)
def test_a_wrong_flag_is_one_sentence(small_run, flags, sentence):
    with pytest.raises(InputError, match=sentence):
        small_run(**flags)


def test_pefts_adapters_are_evaluated_as_the_same_in_our_terms(small_run, tmp_path):
    """What `PeftModel.save_pretrained` writes of an AdaptionPromptConfig."""
    saved = {"peft_type": "ADAPTION_PROMPT", "adapter_len": 4, "adapter_layers": 2}
    (tmp_path / "adapter_config.json").write_text(json.dumps(saved))
    run = small_run("head", adapter=tmp_path)
    assert run.choice.method == "zero_init"
    assert (run.method.length, run.method.layers, run.method.gate, run.method.per_head) == (4, 2, "identity", False)


def test_a_study_varies_a_setting_and_keeps_the_rest(tmp_path):
    path = tmp_path / "study.toml"
    grid = '[[grid]]\ntasks = ["squad"]\nbackbones = ["roberta"]\nmethods = ["zero_init"]\n'
    path.write_text(grid + "settings = [{ method.length = 2 }, { method.length = 3, fit_limit = 5 }, {}]\n")
    runs = plan(read(str(path)), {}, {})
    assert [(run.method.length, run.training.fit_limit) for run in runs] == [(2, None), (3, 5), (8, None)]
    assert len({run.cell for run in runs}) == 3
    path.write_text(grid + "settings = [3]\n")
    with pytest.raises(InputError, match=r"settings of a .* is a list of tables"):
        read(str(path))


def test_settings_can_be_for_several(tmp_path):
    path = tmp_path / "few.toml"
    path.write_text(
        '[[grid]]\ntasks = ["squad"]\nbackbones = ["roberta"]\nmethods = ["zero_init", "lora", "head"]\n'
        'seeds = [0, 1, 2]\n[[set]]\nwhen = { method = ["zero_init", "head"], seed = [0, 2] }\nsteps = 7\n'
    )
    runs = plan(read(str(path)), {}, {})
    assert {(run.choice.method, run.choice.seed) for run in runs if run.training.steps == 7} == {
        (method, seed) for method in ("zero_init", "head") for seed in (0, 2)
    }


def test_steps_of_a_later_table_take_back_the_epochs_of_an_earlier_one(tmp_path):
    grid = "[[grid]]\ntasks = ['squad']\nbackbones = ['roberta']\nmethods = ['lora', 'full']\nseeds = [0]\n"
    text = grid + "[[set]]\nepochs = 3\n[[set]]\nwhen = {method = 'full'}\nsteps = 100\n"
    (tmp_path / "s.toml").write_text(text)
    found = {run.choice.method: run.training for run in plan(read(str(tmp_path / "s.toml")), {"device": "cpu"}, {})}
    assert (found["lora"].epochs, found["full"].epochs, found["full"].steps) == (3, None, 100)


def test_only_some_cells_of_a_suite_can_be_wanted(tmp_path):
    runs = plan(read("study_layers"), {}, {}, {"task": "vtab", "seed": 1})
    assert {(run.choice.task, run.choice.seed) for run in runs} == {("vtab", 1)}
    assert [run.method.layers for run in runs] == [3, 6, 9, 12]
    with pytest.raises(InputError, match=r"study_layers has no cell with .*'lora'"):
        plan(read("study_layers"), {}, {}, {"method": "lora"})
    with pytest.raises(InputError, match="--only has no key 'size': the known ones are task, dataset"):
        plan(read("study_layers"), {}, {}, {"size": 3})


def test_a_folder_of_folders_gives_each_task_its_own(tmp_path):
    (tmp_path / "vtab").mkdir()
    with pytest.raises(InputError, match=f"{tmp_path}/vtab"):  # which is empty
        plan(read("study_layers"), {"data": tmp_path}, {}, {"task": "vtab"})
    with pytest.raises(InputError, match=f"{tmp_path}(?!/vtab)"):
        plan(read("study_layers"), {"data": tmp_path}, {}, {"task": "squad"})


@pytest.mark.parametrize("name", discover.names("suite"))
def test_every_suite_can_be_planned(name):
    assert plan(read(name), {}, {})
