"""VTAB-1k from the command line: every way pictures come in, what the row says of them, and what is refused."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score

import zeroinit
from tasks import _vtab_files as files
from tasks.__main__ import app
from tasks._vtab_sets import DATASETS
from tasks.backbones import vit
from tasks.bench import commandline
from tasks.bench import task as tasks
from tasks.bench.config import Choice
from tasks.bench.errors import InputError
from tasks.bench.report import tables
from tasks.bench.run import run
from tasks.bench.store import Store
from tasks.bench.suite import single
from tasks.mini import vtab as mini

FAST = {"steps": 1, "batch_size": 8, "fit_sample": 4}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """The generated pack of this file's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZEROINIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def pack(tmp_path) -> Path:
    """A small pack, to be changed."""
    mini.write(tmp_path / "data" / "dtd", "eurosat", {"train800": 160, "val200": 40, "test": 80})
    return tmp_path / "data" / "dtd"


@pytest.fixture
def folders(tmp_path) -> Path:
    """Three classes of ten pictures."""
    draw = np.random.default_rng(0)
    for name in ("ant", "bee", "cat"):
        (tmp_path / "own" / name).mkdir(parents=True)
        for number in range(10):
            pixels = draw.integers(0, 256, (20, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "own" / name / f"{number}.png")
    return tmp_path / "own"


def configured(method="head", settings=None, **flags):
    choice = Choice("vtab", "vit", method, **{"dataset": "dtd", "device": "cpu"} | flags)
    return single(choice, FAST | (settings or {}))


def vtab(*arguments: object) -> int:
    fast = [f"--set={key}={value}" for key, value in FAST.items()]
    return commandline.main("vtab", [str(argument) for argument in (*fast, "--device", "cpu", *arguments)])


def refused(capsys, code: int) -> str:
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "")
    (line,) = captured.err.splitlines()
    return line


def test_the_mini_set_runs_offline_and_says_its_protocol(tmp_path, capsys):
    assert vtab("--results", tmp_path, "--method", "head") == 0
    (cell,) = Store(tmp_path).names()
    rows = {row["split"]: row for row in Store(tmp_path).rows_of(cell)}
    assert (rows["report"]["n"], rows["report"]["status"], rows["report"]["n_fit"]) == (400, "done", 1000)
    assert rows["report"]["protocol"] == "vtab/val-select cifar, version 1"
    assert rows["report"]["selection"] == "last step"
    assert "2400 pictures, png" in capsys.readouterr().err
    record = Store(tmp_path).records(cell, "report")[0]
    assert set(record) == {"id", "prediction", "label", "correct"}


def test_a_pack_that_is_smaller_is_partial(pack, tmp_path):
    row = next(iter(_rows(run(configured(data=pack.parent), Store(tmp_path / "r")), tmp_path)))
    assert (row["status"], row["n"], row["n_expected"]) == ("partial", 80, 1880)


def _rows(cell, tmp_path):
    return [row for row in Store(tmp_path / "r").rows_of(cell.name) if row["split"] == "report"]


@pytest.mark.parametrize("short", ["train800", "val200", "test"])
def test_a_whole_pack_is_done_and_a_short_one_partial_whichever_split_it_is(short, pack, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "SIZES", {"train800": 160, "val200": 40, "train800val200": 200})
    monkeypatch.setitem(DATASETS, "dtd", DATASETS["dtd"]._replace(test=80))
    assert _rows(run(configured(data=pack), Store(tmp_path / "r")), tmp_path)[0]["status"] == "done"
    for name in {"train800": ("train800", "train800val200"), "val200": ("val200", "train800val200")}.get(
        short, [short]
    ):
        lines = (pack / f"{name}.txt").read_text().splitlines()
        lines = lines[1:] if short == "train800" else lines[:-1]
        (pack / f"{name}.txt").write_text("\n".join(lines))
    assert _rows(run(configured(data=pack), Store(tmp_path / "r")), tmp_path)[0]["status"] == "partial"


def test_choosing_sees_800_and_200_and_the_last_run_all_of_them(pack, tmp_path, monkeypatch):
    from tasks.bench import run as bench

    seen = []
    kept = bench.train

    def watch(model, parameters, reader, examples, *rest, **named):
        seen.append({picture.id.split("/")[1] for picture in examples})
        return kept(model, parameters, reader, examples, *rest, **named)

    monkeypatch.setattr(bench, "train", watch)
    cell = run(configured(settings={"grid": [1e-2, 1e-3]}, data=pack), Store(tmp_path / "r"))
    assert seen == [{"train800"}, {"train800"}, {"train800", "val200"}]
    assert _rows(cell, tmp_path)[0]["selection"] == "learning rate on tune, last step"


def test_a_test_selected_number_says_so_everywhere(pack, tmp_path):
    config = configured(settings={"protocol": "test-best10", "epochs": 10, "batch_size": 200}, data=pack)
    cell = run(config, Store(tmp_path / "r"))
    (row,) = _rows(cell, tmp_path)
    assert row["selection"].startswith("TEST-SELECTED")
    assert row["protocol"] == "vtab/test-best10 dtd, version 1"
    assert cell.log["peeks"] == [(10, row["value"])]
    store = Store(tmp_path / "r")
    assert "TEST-SELECTED" in tables(store, store.names())


def test_class_folders_are_divided_by_content_and_partial(folders, tmp_path):
    shutil.copy(folders / "ant/0.png", folders / "ant/again.png")
    data = tasks.get("vtab").load(configured(data=folders))
    parts = [{files.content(p) for p in part} for part in (data.fit, data.tune, data.report)]
    assert not (parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2])
    assert len(data.fit) + len(data.tune) + len(data.report) == 31
    assert {len(data.report), len(data.tune)} <= {5, 6, 7}
    config = configured(data=folders)
    assert tasks.get("vtab").classes(config) == 3
    assert set(config.identity["sources"]) == {"class ant", "class bee", "class cat"}
    (row,) = _rows(run(config, Store(tmp_path / "r")), tmp_path)
    assert (row["status"], row["n_expected"], row["head_params"]) == ("partial", 1880, 3 * 65)


def test_the_identity_moves_with_the_pictures(pack, folders):
    before = configured(data=pack).cell
    assert configured(data=pack).cell == before
    path = next(path for name, path in files.pinned(pack).items() if name.startswith("images/"))
    Image.new("RGB", (8, 8)).save(path)
    assert configured(data=pack).cell != before
    before = configured(data=folders).cell
    (folders / "bee/3.png").unlink()
    assert configured(data=folders).cell != before


def test_split_files_can_be_given(pack, tmp_path):
    both = configured(train=pack / "train800.txt", eval=pack / "test.txt")
    data = tasks.get("vtab").load(both)
    assert (len(data.fit), len(data.tune), len(data.report)) == (128, 32, 80)
    one = tasks.get("vtab").load(configured(eval=pack / "test.txt"))
    assert (len(one.fit), len(one.tune), len(one.report)) == (51, 13, 16)
    assert not one.whole
    assert len(tasks.get("vtab").load(configured("frozen", eval=pack / "test.txt")).report) == 80
    with pytest.raises(InputError, match=r"--eval .* is a folder: give a split file .*, or pass --data FOLDER"):
        _ = configured(train=pack / "train800.txt", eval=pack).cell


def test_another_name_is_the_same_cell(pack):
    assert configured(dataset="cifar100").dataset == "cifar"
    assert configured(dataset="cifar100").cell == configured(dataset="cifar").cell


@pytest.mark.parametrize("method", ["zero_init", "lora", "full"])
def test_methods_start_from_the_frozen_model(method, tmp_path):
    facts = run(configured(method, dataset="clevr_count"), Store(tmp_path / "r")).result["facts"]
    assert facts["step0_distance"] == 0.0
    assert facts["head_params"] == 8 * 65
    assert facts["trainable_params"] > facts["head_params"]


def test_a_limit_and_a_seed_keep_the_pictures(pack):
    load = tasks.get("vtab").load
    one, other = (load(configured(data=pack, limit=9, seed=seed)) for seed in (0, 1))
    assert [p.id for p in one.report] == [p.id for p in other.report]
    assert (len(one.fit), len(one.tune), len(one.report)) == (9, 9, 9)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--dataset", "imagenet"], "--dataset 'imagenet' does not exist: choose one of cifar, caltech101"),
        (["--backbone", "roberta"], "--backbone roberta gives span, but vtab asks for class: choose another"),
        (["--set", "normalisation=clip"], "task.normalisation is 'clip'"),
        (["--set", "protocol=best"], "task.protocol is 'best'"),
        (["--set", "report_share=1.5"], "report_share is 1.5"),
        (["--set", "protocol=test-best10"], "this protocol looks every 10 epochs: train for epochs=10 or more"),
        (["--tier", "pocket"], "VTAB-1k is neither given nor to be had from the hub"),
    ],
)
def test_bad_flags_are_one_sentence(arguments, sentence, capsys, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert sentence in refused(capsys, vtab("--results", tmp_path, "--method", "head", *arguments))


def broken(pack: Path, how: str) -> str:
    """Break a pack; what the refusal must name."""
    picture, lines = pack / "images/test/000003.png", (pack / "test.txt").read_text()
    match how:
        case "missing":
            picture.unlink()
        case "truncated":
            picture.write_bytes(picture.read_bytes()[:200])
        case "gray":
            Image.new("L", (32, 32)).save(picture)
        case "label":
            (pack / "test.txt").write_text(re.sub(r"000003.png \d", "000003.png 47", lines))
            return f"{pack}/test.txt: line 4: the label of images/test/000003.png is 47, and there are 47 classes"
        case "twice":
            (pack / "test.txt").write_text(lines.replace("000003.png", "000002.png"))
            return f"{pack}/test.txt: line 4: images/test/000002.png occurs twice"
    return f"{picture}: t"


@pytest.mark.parametrize("how", ["missing", "truncated", "gray", "label", "twice"])
def test_a_bad_picture_is_named_or_left_out_and_counted(how, pack, capsys, tmp_path):
    named = broken(pack, how)
    arguments = ["--data", pack, "--dataset", "dtd", "--method", "frozen", "--results", tmp_path / "r"]
    assert named in refused(capsys, vtab(*arguments))
    assert vtab(*arguments, "--skip-bad", 1) == 0
    captured = capsys.readouterr()
    assert "79/1880" in captured.out
    assert f"note: 1 bad records of test left out: {named}" in captured.err


def test_an_empty_or_foreign_folder_is_refused(capsys, tmp_path, pack):
    assert "holds neither dtd/train800.txt" in refused(capsys, vtab("--data", pack / "images", "--dataset", "dtd"))
    (pack / "test.txt").write_text("\n")
    arguments = ["--data", pack, "--dataset", "dtd", "--results", tmp_path / "r"]
    assert "test.txt: there is no usable line" in refused(capsys, vtab(*arguments))


def test_more_class_folders_than_classes_are_refused(capsys, folders, tmp_path):
    arguments = ["--data", folders, "--dataset", "patch_camelyon", "--results", tmp_path / "r"]
    assert "has 3 folders of pictures, and patch_camelyon 2 classes" in refused(capsys, vtab(*arguments))


def score(*arguments: object) -> int:
    return commandline.guarded(app, ["score", "vtab", *(str(argument) for argument in arguments)])


def test_score_is_accuracy_over_the_reference_file(capsys, tmp_path):
    draw = np.random.default_rng(0)
    labels, said = draw.integers(0, 5, 200), draw.integers(0, 5, 200)
    references, predictions = tmp_path / "test.txt", tmp_path / "said.txt"
    references.write_text("".join(f"images/test/{i:06d}.jpg {label}\n" for i, label in enumerate(labels)))
    predictions.write_text("".join(f"images/test/{i:06d}.jpg {label}\n" for i, label in enumerate(said)))
    arguments = ["--predictions", predictions, "--references", references]
    assert score(*arguments) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"accuracy": pytest.approx(100 * accuracy_score(labels, said), abs=1e-9)}
    assert captured.err == ""
    lines = predictions.read_text().splitlines()
    predictions.write_text("\n".join(reversed(lines[50:])))
    assert score(*arguments) == 0
    captured = capsys.readouterr()
    expected = 100 * accuracy_score(labels, [-1] * 50 + list(said[50:]))
    assert json.loads(captured.out)["accuracy"] == pytest.approx(expected, abs=1e-9)
    assert captured.err == "50 of 200 pictures have no prediction and count as wrong\n"


def test_the_metric_is_the_score():
    from tasks.metrics.vtab import Vtab

    labels, said = np.random.default_rng(1).integers(0, 5, (2, 200))
    found = Vtab().compute(predictions=said, references=labels)
    assert found == {"accuracy": pytest.approx(100 * accuracy_score(labels, said), abs=1e-9)}


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("images/b.jpg 1\n", "images/b.jpg is not in"),
        ("images/a.jpg 1\nimages/a.jpg 1\n", "line 2: images/a.jpg occurs twice"),
        ("images/a.jpg cat\n", "line 1: the label of images/a.jpg is 'cat'; give a class as a number from 0"),
        ("", "there is no usable line"),
    ],
)
def test_score_refuses_what_it_cannot_place(said, sentence, capsys, tmp_path):
    references, predictions = tmp_path / "test.txt", tmp_path / "said.txt"
    references.write_text("images/a.jpg 1\n")
    predictions.write_text(said)
    line = refused(capsys, score("--predictions", predictions, "--references", references))
    assert line.startswith(f"error: {predictions}: ")
    assert sentence in line
    assert "--skip-bad" not in line


def test_fields_reach_the_pixels(pack):
    task = tasks.get("vtab")
    one, other = (
        task.reader(mini_squash(), configured(settings={"normalisation": norm}, data=pack))
        for norm in ("none", "inception")
    )
    picture = task.load(configured(data=pack)).report[0]
    pixels = one.collate(one.ask([picture]))["pixels"]
    assert other.squash.normalized(pixels).min() < 0 <= one.squash.normalized(pixels).min()
    assert one.squash == replace(other.squash, normalisation="none")


def mini_squash():
    from tasks.outputs.classes import Squash

    return Squash(32)


@pytest.mark.shared
def test_the_real_textures_are_ten_classes(shared, tmp_path):
    import tarfile

    with tarfile.open(shared / "data/vision_dtd10/dtd10_short224.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    config = configured(data=tmp_path)
    data = tasks.get("vtab").load(config)
    assert tasks.get("vtab").classes(config) == 10
    assert (len(data.fit), len(data.tune), len(data.report)) == (768, 192, 240)
    assert {picture.label for picture in data.report} == set(range(10))


def test_the_paper_suite_is_every_set_three_times_and_chosen_by_equal_trials():
    from tasks.bench.suite import plan, read

    runs = plan(read("paper"), {"device": "cpu"}, {})
    cells = [run for run in runs if run.choice.task == "vtab"]
    assert len(cells) == 19 * 4 * 3
    assert {run.dataset for run in cells} == set(DATASETS)
    assert {len(run.training.grid) for run in cells} == {4}
    assert {(run.training.epochs, run.training.batch_size, run.task.protocol) for run in cells} == {
        (100, 64, "val-select")
    }


def test_pictures_of_your_own_are_a_set_of_their_own(folders, tmp_path):
    config = configured("zero_init", dataset="own", data=folders)
    data = tasks.get("vtab").load(config)
    assert len(data.fit) + len(data.tune) + len(data.report) == 30
    store = Store(tmp_path / "r")
    made = run(config, store)
    assert made.result["facts"]["status"] == "partial"  # of one source a part is reported
    model = vit.source("mini").load()
    model.reset_classifier(3)
    zeroinit.load(model, store.cells / config.cell / "adapter")  # its head with it
    assert len(zeroinit.gates(model)) == 4


@pytest.mark.parametrize("flags", [{}, {"data": "empty"}])
def test_your_own_without_class_folders_is_refused(flags, capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    given = [f"--{key}={tmp_path / value}" for key, value in flags.items()]
    assert commandline.main("vtab", ["--dataset", "own", "--results", str(tmp_path / "r"), *given]) == 2
    assert "folder of pictures for each class: " in capsys.readouterr().err
