"""COCO Caption from its files to its row: splits, withheld CIDEr, features computed once, and `score`."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tasks import _cider_df
from tasks.__main__ import app
from tasks.backbones import vit
from tasks.bench import commandline
from tasks.bench import task as tasks
from tasks.bench.config import Choice, Run
from tasks.bench.errors import InputError
from tasks.bench.run import run
from tasks.bench.store import Store
from tasks.bench.suite import single
from tasks.metrics import caption_rules as rules
from tasks.metrics import ptb
from tasks.mini import coco_caption as mini
from tests.tasks.conftest import SMALL
from tests.tasks.test_caption_metric import CAPTIONS, GOLDEN, REFERENCES

task = tasks.get("coco_caption")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Nothing of these tests is kept; the generated set is a small one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mini, "SIZES", {"train2017": ("fit", 60), "val2017": ("report", 20), "shift": ("shift", 6)})
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("ZEROINIT_CACHE", str(folder))
        yield folder


@pytest.fixture
def captioned(tmp_path: Path) -> Callable[..., Run]:
    """A tiny run, of the generated pictures where nothing is given."""

    def make(settings: dict[str, Any] | None = None, method: str = "zero_init", **flags: Any) -> Run:
        choice = Choice("coco_caption", "llama", method, **{"device": "cpu"} | flags)
        return single(choice, SMALL | {"max_new_tokens": 4} | (settings or {}))

    return make


def numbered(folder: Path, splits: dict[str, int]) -> Path:
    """A Karpathy file with so many pictures of each split."""
    images = []
    for split, size in splits.items():
        for _ in range(size):
            name = f"{len(images):05d}.png"
            Image.new("RGB", (4, 4), (len(images), 0, 0)).save(folder / name)
            said = [{"raw": f"picture {len(images)} of {split}"}, {"raw": "a picture"}]
            images.append({"filename": name, "cocoid": len(images), "split": split, "sentences": said})
    (folder / "dataset_coco.json").write_text(json.dumps({"images": images}))
    return folder


def pictures(part: list[Any]) -> set[str]:
    return {example.id.partition("#")[0] for example in part}


# Splits


def test_karpathys_splits_have_their_purposes(captioned, tmp_path):
    folder = numbered(tmp_path, {"train": 4, "restval": 3, "val": 2, "test": 5})
    data = task.load(captioned(data=folder))
    assert [len(pictures(part)) for part in (data.fit, data.tune, data.report)] == [7, 2, 5]
    assert (len(data.fit), len(data.tune), data.expected, data.whole) == (14, 2, 5000, False)
    assert [note for note in data.notes if "CIDEr is withheld: 5 of 5000 pictures" in note]
    assert {row.target for row in data.fit if row.id.startswith("0#")} == {"picture 0 of train", "a picture"}
    data = task.load(captioned({"report": "val"}, data=folder))
    assert all(example.target.endswith("of val") for example in data.report)
    assert len(pictures(data.fit)) + len(pictures(data.tune)) == 7
    assert len(task.load(captioned(train=folder / "dataset_coco.json")).report) == 5


def test_training_pictures_may_come_from_another_kind_of_file(captioned, tmp_path):
    train, folder = mini.folder() / "train2017", numbered(tmp_path, {"train": 2, "val": 1, "test": 5})
    for path in train.iterdir():
        (tmp_path / path.name).symlink_to(path)
    flags = {"train": mini.folder() / "captions_train2017.json", "eval": folder / "dataset_coco.json"}
    data = task.load(captioned(data=folder, **flags))
    assert [len(pictures(part)) for part in (data.fit, data.tune, data.report)] == [54, 6, 5]


def test_a_saved_adapter_reports_on_a_whole_file(captioned, tmp_path):
    trained = captioned({"steps": 1, "fit_sample": 0}, limit=1)
    run(trained, Store(tmp_path))
    adapter = tmp_path / "cells" / trained.cell / "adapter"
    data = task.load(captioned(adapter=adapter, eval=mini.folder() / "captions_val2017.json"))
    assert [len(part) for part in (data.fit, data.tune, data.report)] == [0, 0, 20]
    assert (data.expected, list(data.notes)) == (20, [])


def test_a_file_without_training_pictures_is_refused_to_train_on(captioned, tmp_path):
    with pytest.raises(InputError, match="there is nothing to train on"):
        task.load(captioned(data=numbered(tmp_path, {"test": 5})))


def test_two_official_files_are_whole(captioned):
    data = task.load(captioned())
    sizes = [len(pictures(part)) for part in (data.fit, data.tune, data.report)]
    assert [*sizes, len(data.shift)] == [54, 6, 20, 6]
    assert (data.expected, data.whole, list(data.notes)) == (20, True, [])
    assert not pictures(data.fit) & pictures(data.tune)
    assert not (pictures(data.fit) | pictures(data.tune)) & pictures(data.report)
    assert len({tuple(sorted(e.references)) for e in (*data.fit, *data.report)}) == 74


def test_one_file_is_divided_by_pictures(captioned):
    data = task.load(captioned(eval=mini.folder() / "captions_val2017.json"))
    sizes = [len(pictures(part)) for part in (data.fit, data.tune, data.report)]
    assert (sizes, data.expected) == ([14, 2, 4], 20)
    assert "one file without splits" in data.notes[0]
    assert "CIDEr is withheld: 4 of 20 pictures" in data.notes[1]


def test_a_picture_with_a_line_for_each_caption_is_in_one_part(captioned, tmp_path):
    lines = []
    for number in range(100):
        file = f"{number // 5}.png"
        Image.new("RGB", (4, 4), (number // 5, 0, 0)).save(tmp_path / file)
        lines.append({"image_id": number, "file": file, "captions": [f"a picture, said {number}"]})
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = task.load(captioned(train=tmp_path / "own.jsonl"))
    parts = [{int(name) // 5 for name in pictures(part)} for part in (data.fit, data.tune, data.report)]
    assert all(parts)
    assert sum(map(len, parts)) == len(set.union(*parts)) == 20
    (tmp_path / "other").mkdir()
    shutil.copytree(tmp_path, tmp_path / "other/there", ignore=lambda *_: ["other"])
    both = task.load(captioned(train=tmp_path / "own.jsonl", eval=tmp_path / "other/there/own.jsonl"))
    assert not any("are trained on too" in note for note in both.notes)  # other files, numbered alike


def test_a_limit_counts_pictures(captioned):
    data = task.load(captioned(limit=3))
    assert [len(pictures(part)) for part in (data.fit, data.tune, data.report)] == [3, 3, 3]
    assert (len(data.fit), data.whole) == (15, False)


def test_nothing_given_is_one_sentence(captioned):
    with pytest.raises(InputError, match="COCO is not given: pass --data FOLDER"):
        task.load(captioned(tier="pocket"))


# Runs


def rows(store: Store, name: str, split: str = "report") -> dict[str, dict[str, Any]]:
    return {row["metric"]: row for row in store.rows_of(name) if row["split"] == split}


def test_a_second_run_never_touches_the_encoder(captioned, tmp_path, monkeypatch, capsys):
    loaded: list[str] = []
    load = vit.Source.load

    def counted(self: vit.Source, *arguments: Any) -> Any:
        loaded.append(self.name)
        return load(self, *arguments)

    monkeypatch.setattr(vit.Source, "load", counted)
    monkeypatch.setenv("ZEROINIT_CACHE", str(tmp_path / "cache"))
    one, other = (run(captioned(seed=seed), Store(tmp_path / "store")) for seed in (0, 1))
    assert loaded == ["mini world ViT"]
    assert "features of 86 pictures by mini world ViT: 86 of them computed" in capsys.readouterr().err
    facts = one.result["facts"]
    assert (facts["step0_distance"], facts["status"]) == (0.0, "done")
    # 4 layers of prompts and gates, and a projection of 4 depths through the bottleneck to the width.
    assert facts["trainable_params"] == 4 * (8 * 64 + 4) + (4 * 64 + 1) * 64 + 65 * 64
    assert facts["fingerprint"] == other.result["facts"]["fingerprint"]
    assert one.config["settings"]["task"]["depths"] == 4
    assert (tmp_path / "store/cells" / one.name / "adapter").is_dir()


def test_numbers_follow_from_the_records_alone(captioned, tmp_path):
    store = Store(tmp_path)
    name = run(captioned(), store).name
    for split in ("report", "fit", "shift"):
        again = task.metrics(store.records(name, split), "coco")
        assert {key: row["value"] for key, row in rows(store, name, split).items()} == {
            key: score.value for key, score in again.items()
        }
        assert ("cider" in again) == (split != "fit")
    record = store.records(name, "report")[0]
    assert set(record) == {"id", "prediction", "tokens", *rules.Measured._fields, "empty", "truncated"}


def test_records_add_up_to_the_official_numbers(captioned, tmp_path):
    from tasks.coco_caption import Captioned
    from tasks.outputs.lm import Said

    examples = [Captioned(str(n), Path(), "", "", tuple(gold), whole=True) for n, gold in enumerate(REFERENCES)]
    said = [Said(caption, 0.0, 0, (), truncated=False, new_tokens=1) for caption in CAPTIONS]
    records = json.loads(json.dumps(task.records(examples, said, captioned())))
    found = task.metrics(records, "coco")
    assert {key: score.value / 100 for key, score in found.items()} == pytest.approx(GOLDEN, abs=1e-9)
    assert found["bleu4"].stderr is None
    assert found["cider"].stderr > 0
    golds = rules.tokenized(REFERENCES)
    rules.Frequencies.of(golds).write(tmp_path / "df.json")
    alone = task.records(examples[:1], said[:1], captioned({"cider_df": str(tmp_path / "df.json")}))
    assert alone == [records[0] | {"correct": tuple(records[0]["correct"])}]


def test_a_part_reports_cider_only_with_document_frequencies(captioned, tmp_path):
    store = Store(tmp_path / "store")
    part = captioned(limit=4)
    run(part, store)
    assert "cider" not in rows(store, part.cell)
    assert rows(store, part.cell)["bleu4"]["status"] == "partial"
    assert (
        commandline.guarded(_cider_df.app, [str(mini.folder() / "captions_val2017.json"), str(tmp_path / "df.json.gz")])
        == 0
    )
    weighed = captioned({"cider_df": str(tmp_path / "df.json.gz")}, limit=4)
    run(weighed, store)
    assert {"cider"} <= set(rows(store, weighed.cell))
    assert {"cider"} <= set(rows(store, weighed.cell, "fit"))
    assert weighed.identity["sources"]["cider_df"].startswith("df.json.gz#")
    beside = shutil.copytree(mini.folder(), tmp_path / "data")
    shutil.copy(tmp_path / "df.json.gz", beside / "cider_df.json.gz")
    found = captioned({}, limit=4, data=beside)
    assert found.identity["sources"]["cider_df"].startswith("cider_df.json.gz#")


@pytest.mark.parametrize("method", ["frozen", "lora", "full"])
def test_a_method_that_sees_nothing_is_refused(method, captioned, tmp_path):
    with pytest.raises(InputError, match=f"--method {method} cannot be shown a picture"):
        run(captioned(method=method), Store(tmp_path))


def test_a_saved_adapter_sees_what_it_was_trained_on(captioned, tmp_path):
    store = Store(tmp_path)
    trained = captioned({"learning_rate": 0.3})
    run(trained, store)
    folder = store.cells / trained.cell / "adapter"
    again = captioned({"learning_rate": 0.3}, adapter=folder)
    run(again, store)
    assert store.records(again.cell, "report") == store.records(trained.cell, "report")
    with pytest.raises(InputError, match=r"was trained on ImageCondition\(depths=4.* set encoder, depths"):
        run(captioned({"depths": 2}, adapter=folder), store)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"depths": 0}, "depths is 0: give 1 or more"),
        ({"num_beams": 0}, "num_beams is 0: give 1 or more"),
        ({"report_share": 1.0}, "report_share is 1.0: give a share"),
        ({"cider_df": "nowhere"}, "cider_df is nowhere, which is no file"),
    ],
)
def test_settings_out_of_range_are_refused(settings, sentence, captioned):
    with pytest.raises(InputError, match=sentence):
        captioned(settings)


def test_more_depths_than_the_encoder_has_are_refused(captioned, tmp_path):
    with pytest.raises(InputError, match="depths is 5, but the encoder has 4 blocks"):
        run(captioned({"depths": 5}), Store(tmp_path))


def test_what_scores_is_asked_for_before_anything_is_trained(captioned, monkeypatch):
    monkeypatch.setattr(ptb.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install -e '\.\[caption\]'"):
        task.load(captioned())


def test_beams_search_captions(captioned, tmp_path):
    greedy, beams = captioned({"learning_rate": 0.3}), captioned({"learning_rate": 0.3, "num_beams": 3})
    assert greedy.cell != beams.cell
    assert run(beams, Store(tmp_path)).result["splits"]["report"]["n"] == 20


# score


def files(folder: Path, said: Any, golds: dict[int, list[str]] | None = None) -> list[str]:
    known = golds or dict(enumerate(REFERENCES))
    annotations = [{"image_id": name, "caption": text} for name, texts in known.items() for text in texts]
    document = {"images": [{"id": name} for name in known], "annotations": annotations}
    (folder / "references.json.gz").write_bytes(gzip.compress(json.dumps(document).encode()))
    (folder / "results.json").write_text(json.dumps(said))
    return ["--predictions", str(folder / "results.json"), "--references", str(folder / "references.json.gz")]


def results(captions: dict[int, str]) -> list[dict[str, Any]]:
    return [{"image_id": name, "caption": caption} for name, caption in captions.items()]


def scored(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = commandline.guarded(app, ["score", "coco_caption", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_score_prints_the_official_numbers(capsys, tmp_path):
    code, out, err = scored(capsys, *files(tmp_path, results(dict(enumerate(CAPTIONS)))))
    (line,) = out.splitlines()
    assert (code, err) == (0, "")
    assert json.loads(line) == pytest.approx(GOLDEN, abs=1e-9)
    assert list(json.loads(line)) == ["bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider"]


def test_a_missing_caption_counts_as_an_empty_one_or_is_left_out(capsys, tmp_path):
    arguments = files(tmp_path, results({0: CAPTIONS[0], 2: CAPTIONS[2]}))
    code, out, err = scored(capsys, *arguments)
    assert (code, err) == (0, "1 of 3 captions are missing, first 1, and count as empty ones\n")
    assert json.loads(out) == pytest.approx(rules.score(REFERENCES, [CAPTIONS[0], "", CAPTIONS[2]]))
    code, out, err = scored(capsys, *arguments, "--missing", "leave-out")
    assert "are left out, which changes CIDEr's weights too" in err
    assert json.loads(out) == pytest.approx(rules.score(REFERENCES[::2], CAPTIONS[::2]))


def test_score_takes_saved_document_frequencies(capsys, tmp_path):
    arguments = files(tmp_path, results(dict(enumerate(CAPTIONS))))
    assert commandline.guarded(_cider_df.app, [arguments[-1], str(tmp_path / "df.json")]) == 0
    assert "3 pictures" in capsys.readouterr().err
    part = files(tmp_path, results({0: CAPTIONS[0]}), {0: REFERENCES[0]})
    assert json.loads(scored(capsys, *part)[1])["cider"] == 0.0
    whole = rules.measure(
        rules.tokenized(REFERENCES), ptb.tokenize(CAPTIONS), rules.Frequencies.read(tmp_path / "df.json")
    )
    assert json.loads(scored(capsys, *part, "--cider-df", str(tmp_path / "df.json"))[1])["cider"] == whole[0].cider


@pytest.mark.parametrize(
    ("said", "more", "sentence"),
    [
        (results({0: "a", 9: "b"}), (), "results.json: [1]: the picture 9 is not in "),
        ([*results({0: "a"}), *results({0: "b"})], (), "results.json: [1]: the picture 0 has a caption already"),
        ({"0": "a"}, (), "this is no list; give [{"),
        ([{"image_id": "0", "caption": "a"}], (), "'image_id' is a string; give a whole number"),
        ([{"image_id": 0, "caption": None}], (), "'caption' is null; give a string"),
        ([], ("--missing", "leave-out"), "there is no caption to score"),
        (results({0: "a"}), ("--missing", "guess"), "--missing is guess: give empty or leave-out"),
        (results({0: "a"}), ("--cider-df", "nowhere.json"), "nowhere.json: it cannot be read"),
        (results({0: "a"}), ("--spice", "yes"), "--spice is no option of this task's score"),
    ],
)
def test_bad_results_are_one_sentence(said, more, sentence, capsys, tmp_path):
    code, out, err = scored(capsys, *files(tmp_path, said), *more)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("error: ")
    assert sentence in err


def test_references_without_a_caption_are_refused(capsys, tmp_path):
    code, _, err = scored(capsys, *files(tmp_path, results({0: "a"}), {0: ["x"], 5: []}))
    assert code == 2
    assert "images[1]: no annotation has a caption for this picture" in err
