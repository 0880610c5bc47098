"""VTAB's files: what a split file says and never guesses, packs and class folders found, and nothing taken on trust."""

import contextlib
import itertools
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tasks import _vtab_files as files
from tasks._vtab_files import Picture
from tasks._vtab_sets import ALIASES, DATASETS, GROUPS
from tasks.bench.documents import Tolerance
from tasks.bench.errors import InputError
from tasks.mini import vtab as mini

TASK_ADAPTATION = {  # the test sizes in each `<data set>_test.py` of google-research/task_adaptation
    **{"cifar": 10000, "caltech101": 6084, "dtd": 1880, "oxford_flowers102": 6149, "oxford_iiit_pet": 3669},
    **{"svhn": 26032, "sun397": 21750, "patch_camelyon": 32768, "eurosat": 5400, "resisc45": 6300},
    **{"diabetic_retinopathy": 42670, "clevr_count": 15000, "clevr_dist": 15000, "dmlab": 22735, "kitti": 711},
    **{"dsprites_loc": 73728, "dsprites_ori": 73728, "smallnorb_azi": 12150, "smallnorb_ele": 12150},
}
FACT = (100, 102, 47, 102, 37, 10, 397, 2, 10, 45, 5, 8, 6, 6, 4, 16, 16, 18, 9)
"""The class counts of FacT's loader, in the canonical order."""


def test_the_nineteen_are_the_literatures():
    assert {name: dataset.test for name, dataset in DATASETS.items()} == TASK_ADAPTATION
    assert tuple(dataset.classes for dataset in DATASETS.values()) == FACT
    assert sum(dataset.test for dataset in DATASETS.values()) == 387_904
    assert [sum(d.group == group for d in DATASETS.values()) for group in GROUPS] == [7, 4, 8]
    assert not set(ALIASES) & set(DATASETS)
    assert ALIASES["cifar100"] == "cifar"
    assert ALIASES["oxford_pet"] == ALIASES["pets"] == "oxford_iiit_pet"


SMALL = {"train800": 160, "val200": 40, "test": 80}


@pytest.fixture
def pack(tmp_path) -> Path:
    """A small pack of eight classes, all of it."""
    mini.write(tmp_path / "dtd", "eurosat", SMALL)
    return tmp_path / "dtd"


def written(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


words = st.text(st.characters(codec="utf-8", exclude_categories=("Z", "C")), min_size=1, max_size=12)
names = st.lists(words, min_size=1, max_size=3).map(" ".join)


@given(st.dictionaries(names, st.integers(0, 10**6), min_size=1, max_size=20), st.sampled_from(["\n", "\r\n", "\n\n"]))
def test_what_is_written_is_read(tmp_path_factory, labels, end):
    path = tmp_path_factory.mktemp("split") / "test.txt"
    written(path, end.join(f"{name} {label}" for name, label in labels.items()))
    assert {picture.id: picture.label for picture in files.split(path)} == labels
    assert all(picture.path == path.parent / picture.id for picture in files.split(path))


@given(st.binary(max_size=200), st.sampled_from([None, 10]))
def test_any_bytes_are_pictures_or_one_sentence(tmp_path_factory, data, classes):
    path = written(tmp_path_factory.mktemp("split") / "test.txt", data)
    found = []
    with contextlib.suppress(InputError):
        found = files.split(path, classes)
    assert all(picture.id and 0 <= picture.label < (classes or 10**9) for picture in found)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a.jpg 0\nb.jpg\n", "line 2: this is 'b.jpg'; write `path label`"),
        ("a.jpg 0\nb.jpg one\n", "line 2: the label of b.jpg is 'one'"),
        ("a.jpg -1\n", "line 1: the label of a.jpg is '-1'"),
        ("a.jpg 1.0\n", "line 1: the label of a.jpg is '1.0'"),
        (f"a.jpg {'9' * 5000}\n", "line 1: the label of a.jpg is '999"),
        ("a.jpg ³\n", "line 1: the label of a.jpg is '³'"),
        ("a.jpg 46\n\nb.jpg 47\n", "line 3: the label of b.jpg is 47, and there are 47 classes, counted from 0"),
        ("a.jpg 0\na.jpg 1\n", "line 2: a.jpg occurs twice"),
        ("\n \n", "there is no usable line"),
        (b"\xff 0\n", "byte 0 is not UTF-8"),
    ],
)
def test_a_wrong_line_is_named(text, sentence, tmp_path):
    path = written(tmp_path / "test.txt", text)
    with pytest.raises(InputError) as caught:
        files.split(path, 47)
    assert str(caught.value).startswith(f"{path}: {sentence}")


def test_bad_lines_and_pictures_are_left_out_and_counted(pack):
    (pack / "images/test/000001.png").unlink()
    lines = (pack / "test.txt").read_text().splitlines()
    written(pack / "test.txt", "\n".join([lines[0].rsplit(" ", 1)[0] + " 99", *lines[1:]]))
    bad = Tolerance(2)
    found = files.looked_at(files.split(pack / "test.txt", 8, bad), bad)
    assert len(found) == len(lines) - 2
    assert "the label of images/test/000000.png is 99" in bad.left_out[0]
    assert "000001.png: there is no such picture" in bad.left_out[1]
    with pytest.raises(InputError, match="or pass --skip-bad N"):
        files.looked_at(files.split(pack / "test.txt", 8, bad), bad)


@pytest.mark.parametrize("name", ["dtd", "vtab-1k/dtd", ""])
def test_a_pack_is_found_where_packs_are_kept(name, pack, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(pack, root / name)
    assert files.place(root, "dtd") == root / name
    assert set(files.split_files(root / name)) == {"train800", "val200", "train800val200", "test"}


def test_a_pack_is_found_by_what_others_call_it(pack, tmp_path):
    pack.rename(tmp_path / "cifar100")
    assert files.place(tmp_path, "cifar") == tmp_path / "cifar100"
    with pytest.raises(InputError, match=r"holds neither dtd/train800.txt .* nor a folder of pictures for each class"):
        files.place(tmp_path, "dtd")


def test_a_pack_without_a_split_is_no_class_folder(pack):
    (pack / "val200.txt").unlink()
    with pytest.raises(InputError, match=r"val200.txt is missing: a VTAB-1k pack has train800.txt, val200.txt, "):
        files.split_files(files.place(pack, "dtd"))
    for file in pack.glob("*.txt"):
        file.unlink()
    shutil.copytree(pack / "images" / "test", pack / "images" / "shift", dirs_exist_ok=True)
    assert files.class_folders(pack) == []


def test_class_folders_are_classes_in_order_of_name(tmp_path):
    for name in ("zebra", "ant", "test", "empty"):
        (tmp_path / "images" / name).mkdir(parents=True)
    for name in ("ant/2.JPG", "ant/1.png", "zebra/1.jpeg", "test/1.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / "images" / name)
    written(tmp_path / "images/ant/notes.txt", "no picture")
    assert files.place(tmp_path, "dtd") == tmp_path
    found = files.from_folders(files.class_folders(tmp_path))
    assert [(picture.id, picture.label) for picture in found] == [
        ("ant/1.png", 0),
        ("ant/2.JPG", 0),
        ("test/1.png", 1),
        ("zebra/1.jpeg", 2),
    ]


def test_a_fingerprint_moves_with_any_split_file_and_any_of_its_pictures(pack):
    before = files.fingerprint(pack)
    assert len(files.pinned(pack)) == 4 + 16
    assert before == files.fingerprint(pack)
    path = next(path for name, path in files.pinned(pack).items() if name.startswith("images/"))
    kept = path.read_bytes()
    Image.new("RGB", (32, 32)).save(path)
    assert files.fingerprint(pack) != before
    path.write_bytes(kept)
    lines = (pack / "val200.txt").read_text().splitlines()
    written(pack / "val200.txt", "\n".join(lines[1:]))
    assert files.fingerprint(pack) != before


def parts(**labels: list[int]) -> dict[str, list[Picture]]:
    return {
        name: [Picture(f"{i}", Path(f"{i}"), label) for i, label in enumerate(those)] for name, those in labels.items()
    }


def test_splits_must_belong_together():
    here = Path("dtd")
    sizes = {"train800": 3, "val200": 2, "train800val200": 5, "test": 1}
    files.check(here, parts(train800=[0, 1, 2], val200=[1, 0], train800val200=[0, 1, 2, 1, 0], test=[0]), sizes)
    swapped = parts(train800=[0, 1, 2], val200=[1, 0], train800val200=[1, 0, 0, 1, 2], test=[0])
    with pytest.raises(InputError, match=r"dtd/train800val200.txt has other labels than"):
        files.check(here, swapped, sizes)
    files.check(here, swapped, sizes, compare=False)
    with pytest.raises(InputError, match=r"dtd/test.txt has 1 pictures, and VTAB-1k's 0"):
        files.check(here, swapped, sizes | {"test": 0}, compare=False)


def test_a_set_is_unpacked_from_the_zip_of_all(pack, tmp_path):
    archive = tmp_path / "vtab-1k.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in pack.rglob("*"):
            packed.write(path, f"vtab-1k/cifar100/{path.relative_to(pack)}")
            packed.write(path, f"vtab-1k/dtd/{path.relative_to(pack)}")
        packed.writestr("../cifar100/outside.txt", "never there")
    target = tmp_path / "cache" / "cifar"
    files.unzip(archive, "cifar", target)
    assert files.fingerprint(target) == files.fingerprint(pack)
    assert not (tmp_path / "cifar100").exists()
    assert list(target.parent.iterdir()) == [target]
    with pytest.raises(InputError, match="holds 0 packs of svhn"):
        files.unzip(archive, "svhn", tmp_path / "cache" / "svhn")
    archive.write_bytes(archive.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"vtab-1k.zip: this cannot be unpacked"):
        files.unzip(archive, "dtd", tmp_path / "cache" / "dtd")
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("dataset", mini.SETS)
def test_a_generated_pack_is_always_the_same_and_shares_no_picture_between_splits(dataset, tmp_path):
    sizes = SMALL | {"shift": 24}
    for name in ("one", "again"):
        mini.write(tmp_path / name, dataset, sizes)
    assert files.fingerprint(tmp_path / "one") == files.fingerprint(tmp_path / "again")
    parts = {
        name: files.split(path, mini.classes(dataset)) for name, path in files.split_files(tmp_path / "one").items()
    }
    assert {name: len(part) for name, part in parts.items() if name in SMALL} == SMALL
    files.check(tmp_path / "one", parts, {**SMALL, "train800val200": 200})
    contents = {name: {files.content(picture) for picture in part} for name, part in parts.items()}
    assert contents.pop("train800val200") == contents["train800"] | contents["val200"]
    assert (
        sum(map(len, contents.values())) == len(set().union(*contents.values())) == sum(len(parts[n]) for n in contents)
    )
    assert {picture.label for picture in parts["train800"]} == set(range(mini.classes(dataset)))


def test_painted_labels_are_seen_in_the_pixels():
    """A thing is whatever is far from the ground, which is the corner's color."""

    def thing(picture: Image.Image) -> np.ndarray:
        pixels = np.asarray(picture, dtype=float)
        return np.argwhere(np.abs(pixels - pixels[0, 0]).sum(2) > 40)

    for picture, label in itertools.islice(mini.SETS["dsprites_loc"].labeled("usual"), 60):
        across = thing(picture)[:, 1]
        assert abs((across.min() + across.max() + 1) / 2 - (8 + 3 * label + 1.5)) < 2.5
    for picture, label in itertools.islice(mini.SETS["dsprites_ori"].labeled("usual"), 60):
        found = thing(picture)
        middle = (found.min(0) + found.max(0)) / 2
        # A dart is heavier behind its middle: it points away from there.
        tip = found[np.linalg.norm(found - found.mean(0), axis=1).argmax()] - found.mean(0)
        turn = np.arctan2(tip[1], -tip[0]) % (2 * np.pi)
        assert middle.shape == (2,)
        assert min(abs(turn - label * np.pi / 8 + k) for k in (-2 * np.pi, 0, 2 * np.pi)) < 0.35


def test_digits_keep_scikit_learns_labels():
    from sklearn.datasets import load_digits

    found = load_digits()
    known = {mini._gray(pixels / 16).tobytes(): label for pixels, label in zip(found.images, found.target, strict=True)}
    made = list(mini.SETS["svhn"].labeled("usual"))
    assert len(made) == 1797
    assert all(known[picture.tobytes()] == label for picture, label in made)


def test_what_nothing_stands_in_for_is_refused():
    with pytest.raises(InputError, match="nothing that stands in for caltech101: choose one of cifar, svhn, eurosat"):
        mini.classes("caltech101")
