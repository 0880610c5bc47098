"""The mini world's files: read by every task's usual loader, scored by its official metric, and right to the last.

An oracle that knows what the world was told from answers all of it; what knows no passage and no picture does not.
"""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tasks import _vtab_files
from tasks.bench import task as tasks
from tasks.bench.config import Choice, Run
from tasks.bench.suite import single
from tasks.mini import coco_caption, instruct, scienceqa, squad, vtab

SMALL = {
    squad: {"train": ("fit", 60), "dev": ("report", 40), "shift": ("shift", 30)},
    coco_caption: {"train2017": ("fit", 12), "val2017": ("report", 12), "shift": ("shift", 6)},
    scienceqa: {"train": ("fit", 60), "val": ("fit", 12), "test": ("report", 60), "shift": ("shift", 30)},
}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Small files, kept for this module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZEROINIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        for room, sizes in SMALL.items():
            patch.setattr(room, "SIZES", sizes)
        sizes = {name: (split, kind, min(size, 36)) for name, (split, kind, size) in instruct.FILES.items()}
        patch.setattr(instruct, "FILES", sizes)
        patch.setattr(vtab, "SIZES", {"train800": 40, "val200": 10, "test": 20, "shift": 10})
        yield


def mini(task: str, backbone: str, dataset: str | None = None, method: str = "zero_init") -> Run:
    return single(Choice(task, backbone, method, dataset=dataset, device="cpu"), {})


def scored(task: str, said: Any, references: Path, folder: Path, **options: Any) -> dict[str, float]:
    path = folder / "said.json"
    path.write_text(said if isinstance(said, str) else json.dumps(said))
    return tasks.get(task).score(path, references, **options)


@pytest.mark.parametrize("version", ["v1.1", "v2.0"])
def test_squad_is_read_and_the_oracle_is_right(version, tmp_path):
    data = tasks.get("squad").load(mini("squad", "roberta", version))
    assert [len(data.fit) + len(data.tune), len(data.report), len(data.shift)] == [60, 40, 30]
    assert data.expected == 40
    assert not {q.context for q in (*data.fit, *data.tune)} & {q.context for q in (*data.report, *data.shift)}
    assert not {q.id for q in (*data.fit, *data.tune)} & {q.id for q in (*data.report, *data.shift)}
    for part, name in ((data.report, "dev"), (data.shift, "shift")):
        said = {q.id: q.answers[0] if q.answers else "" for q in part}
        scores = scored("squad", said, squad.folder() / f"{name}-{version}.json", tmp_path)
        assert scores["f1"] == scores["exact_match" if version == "v1.1" else "exact"] == 100.0
    # Whoever always says the answers that are most frequent is rarely right.
    common = Counter(q.answers[0] for q in data.fit if q.answers).most_common(1)[0][0]
    said = {q.id: common for q in data.report}
    assert scored("squad", said, squad.folder() / f"dev-{version}.json", tmp_path)["f1"] < 30


@pytest.mark.parametrize(("dataset", "share"), [("text", 2 / 3), ("image", 1 / 3), ("all", 1)])
def test_scienceqa_is_read_and_the_oracle_is_right(dataset, share, tmp_path):
    data = tasks.get("scienceqa").load(mini("scienceqa", "llama", dataset))
    sizes = [len(data.fit), len(data.tune), len(data.report), len(data.shift)]
    assert sizes == [round(share * size) for _, size in scienceqa.SIZES.values()]
    assert (data.expected, data.whole) == (len(data.report), True)
    put = {(a.prompt, a.image and _vtab_files.content(_vtab_files.Picture("", a.image, 0))) for a in data.fit}
    shown = [(a.prompt, a.image and _vtab_files.content(_vtab_files.Picture("", a.image, 0))) for a in data.report]
    known = [a for a, key in zip(data.report, shown, strict=True) if key in put]
    assert all(a.problem.labels.topic == "vocabulary" for a in known)  # which are of what holds everywhere
    for part, name in ((data.report, "problems"), (data.shift, "problems_shift")):
        said = {a.id: a.problem.answer for a in part}
        references = scienceqa.folder() / f"{name}.json"
        right = scored("scienceqa", said, references, tmp_path)["accuracy"]
        assert right == pytest.approx(100 * len(part) / SMALL[scienceqa]["test" if name == "problems" else "shift"][1])


def test_captions_are_read_and_one_of_five_is_a_good_one(tmp_path):
    data = tasks.get("coco_caption").load(mini("coco_caption", "llama"))
    assert {len(e.references) for e in (*data.report, *data.shift)} == {5}
    assert [len(data.fit), len(data.tune), len(data.report), len(data.shift)] == [55, 1, 12, 6]
    for part, name in ((data.report, "val2017"), (data.shift, "shift")):
        references = coco_caption.folder() / f"captions_{name}.json"
        said = [{"image_id": int(e.id), "caption": e.references[0]} for e in part]
        oracle = scored("coco_caption", said, references, tmp_path)
        assert (oracle["bleu4"], oracle["rouge_l"]) == pytest.approx((1, 1))
        blind = [one | {"caption": part[0].references[0]} for one in said]
        assert scored("coco_caption", blind, references, tmp_path)["cider"] < oracle["cider"] / 2


def test_instructions_are_read_and_no_reported_one_is_learned_from():
    data = tasks.get("instruct").load(mini("instruct", "llama"))
    assert [len(data.fit) + len(data.tune), len(data.report), len(data.shift)] == [36, 36, 36]
    assert not {a.text for a in (*data.fit, *data.tune)} & {a.text for a in (*data.report, *data.shift)}
    assert all(a.target for a in (*data.fit, *data.report, *data.shift))
    for dataset in ("self_instruct", "ifeval", "vicuna"):
        assert len(tasks.get("instruct").load(mini("instruct", "llama", dataset)).report) == 36


@pytest.mark.parametrize("dataset", ["svhn", "clevr_count"])
def test_packs_are_read_and_the_oracle_is_right(dataset, tmp_path):
    vtab.write(tmp_path / dataset, dataset, vtab.SIZES)
    run = single(Choice("vtab", "vit", "head", dataset=dataset, device="cpu", data=tmp_path), {})
    data = tasks.get("vtab").load(run)
    assert [len(data.fit), len(data.tune), len(data.report)] == [40, 10, 20]
    assert len(data.shift) == (10 if dataset == "clevr_count" else 0)
    said = "".join(f"{picture.id} {picture.label}\n" for picture in data.report)
    assert scored("vtab", said, tmp_path / dataset / "test.txt", tmp_path) == {"accuracy": 100.0}


def test_what_the_files_say_is_part_of_a_cells_name(monkeypatch):
    one = mini("squad", "roberta")
    assert set(one.identity["sources"]) == {"train", "eval", "shift"}
    path = squad.folder() / "shift-v1.1.json"
    before = path.read_text()
    path.write_text(before.replace("shift chronicle", "other chronicle"))
    assert mini("squad", "roberta").cell != one.cell
    path.write_text(before)


def test_no_question_of_science_is_in_two_parts():
    where = scienceqa.folder()
    parts: dict[tuple[str, ...], set[str]] = {}
    for name in ("problems.json", "problems_shift.json"):
        for pid, problem in json.loads((where / name).read_text()).items():
            picture = where / "images" / problem["split"] / pid / (problem["image"] or "none")
            shown = hashlib.sha256(picture.read_bytes()).hexdigest() if problem["image"] else ""
            asked = (problem["question"], problem["hint"], *sorted(problem["choices"]), shown)
            parts.setdefault(asked, set()).add(f"{name} {problem['split']}")
    assert len(parts) > 100
    assert not [asked for asked, found in parts.items() if len(found) > 1]
