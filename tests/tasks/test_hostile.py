"""What a stranger could have made on purpose: each is one sentence, and nothing of it runs, hangs or gets out."""

import gzip
import json
import math
import pickle
import random
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

import zeroinit
from tasks import _coco_files, _instruct_files, _judge, _scienceqa_files, _squad_files, _vtab_files
from tasks._unpacked import unpacked
from tasks.bench import cache, decode, gzipped, plain
from tasks.bench import task as tasks
from tasks.bench.config import Choice
from tasks.bench.documents import read_json
from tasks.bench.errors import InputError
from tasks.bench.planned import Planned
from tasks.bench.report import published, report
from tasks.bench.settings import parse_settings
from tasks.bench.store import Store
from tasks.bench.suite import read, single
from tasks.bench.verify import discrepancies
from tasks.metrics import ifeval_rules
from tasks.metrics.caption_rules import Frequencies
from tests.tasks.entries import Payload, caption_lines, cells, pack, problems, put
from tests.tasks.fabricated import suite
from tests.tasks.mutations import EPS, PLAIN, SVG, archive, png
from tests.zeroinit.opened import llama
from zeroinit import methods

LONG = "x" * 5000
"""No file can have this name, and asking for one is an error of the system."""
DEEP = {"json": "[" * 100_000, "jsonl": "[" * 100_000 + "]" * 100_000 + "\n"}

READERS = {
    "squad.json": lambda path: _squad_files.questions(read_json(path), "v1.1"),
    "scienceqa.json": _scienceqa_files.problems,
    "scienceqa.jsonl": _scienceqa_files.problems,
    "coco.json": _coco_files.pictures,
    "coco.jsonl": _coco_files.pictures,
    "alpaca.json": lambda path: _instruct_files.read(path, "alpaca"),
    "ifeval.jsonl": lambda path: _instruct_files.read(path, "ifeval"),
    "judgments.jsonl": _judge.read,
}


@pytest.mark.parametrize("name", READERS)
def test_json_without_end_is_refused_by_every_reader(name, tmp_path):
    path = tmp_path / name
    path.write_text(DEEP[name.partition(".")[2]])
    with pytest.raises(InputError, match="nested too deeply"):
        READERS[name](path)


def test_a_small_file_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "x.json.gz"
    path.write_bytes(gzip.compress(b"[" + b" " * 5000 + b"]"))
    assert read_json(path).value == []
    monkeypatch.setattr(gzipped, "LIMIT", 5001)
    with pytest.raises(InputError, match=r"x.json.gz: this unpacks to more than"):
        read_json(path)


def test_records_that_unpack_to_too_much_are_refused(tmp_path, monkeypatch):
    store = stored(tmp_path)
    assert list(discrepancies(store)) == []
    monkeypatch.setattr(gzipped, "LIMIT", 100)
    assert "this unpacks to more than" in next(discrepancies(store))
    with pytest.raises(InputError, match="this unpacks to more than"):
        store.records(store.names()[0], "report")


@pytest.mark.parametrize("data", [EPS, SVG, b"%PDF-1.4\n", b"\0\0\1\0\1\0"], ids=["eps", "svg", "pdf", "ico"])
def test_what_only_has_a_pictures_name_starts_no_program(data, tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    path = put(tmp_path / "a.png", data)
    with pytest.raises(InputError, match=r"a\.png: this picture cannot be decoded"):
        decode.rgb(path)


@pytest.mark.parametrize("side", [20_000, 2**31 - 1])
def test_a_picture_that_says_to_be_huge_is_refused_by_its_head(side, tmp_path):
    with pytest.raises(InputError, match=r"more than 89,478,485 pixels|cannot be decoded"):
        decode.any_colors(put(tmp_path / "a.png", png(side, side)))


def test_a_picture_whose_name_no_file_can_have_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"there is no such picture"):
        decode.rgb(tmp_path / LONG)
    lines = [{**line, "file": LONG} for line in caption_lines()]
    path = put(tmp_path / "captions.jsonl", "\n".join(map(json.dumps, lines)).encode())
    with pytest.raises(InputError, match=r"line 1: there is no picture x"):
        _coco_files.pictures(path)
    known = {pid: {**problem, "image": LONG} for pid, problem in problems().items()}
    path = put(tmp_path / "problems.json", json.dumps(known).encode())
    with pytest.raises(InputError, match=r"problems.json: 0: its picture .* is not there"):
        _scienceqa_files.problems(path, pictures=True)
    for name, lines in pack().items():
        put(tmp_path / f"{name}.txt", "\n".join([*lines, f"{LONG} 1"]).encode())
    assert len(_vtab_files.pinned(tmp_path)) == 4
    with pytest.raises(InputError, match=r"cider_df is x.* which is no file"):
        single(Choice("coco_caption", "llama", "zero_init", device="cpu"), {"cider_df": LONG})


def members(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in names:
            packed.writestr(name, b"x 0\n" * 100)
    return path


def test_an_archive_that_cannot_be_unpacked_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("ZEROINIT_CACHE", str(tmp_path / "cache"))
    whole = members(tmp_path / "a.zip", "cifar/test.txt").read_bytes()
    head = whole.index(b"cifar/test.txt") + len("cifar/test.txt")
    central = whole.index(b"PK\1\2")
    broken = {
        "damaged": whole[:head] + b"\xff\xff" + whole[head + 2 :],
        "of no known way": whole[: central + 10] + b"\x63\0" + whole[central + 12 :],
        "with a password": whole[:6] + b"\1\0" + whole[8 : central + 8] + b"\1\0" + whole[central + 10 :],
    }
    for name, data in broken.items():
        with pytest.raises(InputError, match="this cannot be unpacked"):
            _vtab_files.unzip(put(tmp_path / f"{name}.zip", data), "cifar", tmp_path / name)
    packed = archive(random.Random(0), {"a.png": random.Random(0).randbytes(9000).hex().encode()}, mode="w:gz", extra=0)
    assert (unpacked(put(tmp_path / "a.tar", packed)) / "a.png").is_file()
    for data in (packed[:5000] + bytes(40) + packed[5040:], packed[:1000], b"", bytes(100), b"BZh9", b"\xfd7zXZ\0"):
        with pytest.raises(InputError, match="this cannot be unpacked"):
            unpacked(put(tmp_path / "a.tar", data))
    assert list(unpacked(put(tmp_path / "empty.tar", bytes(10240))).iterdir()) == []


def test_a_zip_keeps_to_its_folder(tmp_path):
    path = members(tmp_path / "a.zip", "cifar/test.txt", "../../cifar/x", "/cifar/y", "cifar/../../cifar/z")
    _vtab_files.unzip(path, "cifar", tmp_path / "cache" / "cifar")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.zip", "cache"]
    assert [each.name for each in (tmp_path / "cache").iterdir()] == ["cifar"]
    assert cache.root() != tmp_path


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 3000 + "]" * 3000], ids=["digits", "brackets"])
def test_a_setting_beyond_reading_is_refused_by_its_field(value, tmp_path):
    with pytest.raises(InputError, match=r"the setting training.steps is '.*', which is not int"):
        single(Choice("squad", "roberta", "head", device="cpu"), parse_settings([f"steps={value}"]))
    path = tmp_path / "own.toml"
    path.write_text(f"[[set]]\nsteps = {value}\n")
    with pytest.raises(InputError, match=r"own.toml: this is not TOML \("):
        read(str(path))


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("squad,v1.1,f1,nan,a,b,c,d,e,f", "line 2: 'nan' is no number; correct it"),
        ("squad,v1.1,f1,1.0,a", "line 2: give as many values as there are columns"),
        ("squad,v1.1,f1,1.0,a,b,c,d,e,f,g", "line 2: give as many values as there are columns"),
        ("x" * 200_000, "cannot be read .field larger than field limit"),
        ("\ud800", "cannot be read .'utf-8' codec"),
    ],
)
def test_published_numbers_that_are_none_are_refused(line, sentence, tmp_path):
    text = f"{','.join(published.COLUMNS)}\n{line}\n"
    path = put(tmp_path / "published.csv", text.encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError, match=sentence):
        published.read(path)
    with pytest.raises(InputError, match="has no column 'task'"):
        published.read(put(tmp_path / "other.csv", b"a,b\n1,2\n"))


def test_an_answer_without_a_turn_is_refused(tmp_path):
    for choices in ([], [{"turns": []}]):
        line = json.dumps({"question_id": 1, "choices": choices})
        with pytest.raises(InputError, match="line 1: there is no turn in 'choices'"):
            _judge._answers(put(tmp_path / "x.jsonl", line.encode()), {"1": "Why?"})


@pytest.mark.parametrize("how", range(6))
def test_nothing_in_an_official_file_runs(how, tmp_path):
    sentinel = tmp_path / "ran"
    model, path = llama(layers=2), tmp_path / "adapter.pth"
    for state in (Payload(how, str(sentinel)), {"model": Payload(how, str(sentinel))}):
        for write in (torch.save, lambda what, path: path.write_bytes(pickle.dumps(what))):
            write(state, path)
            with pytest.raises(ValueError, match=r"adapter\.pth cannot be read as a file of tensors"):
                zeroinit.load_official(model, path)
    assert not sentinel.exists()


@pytest.mark.parametrize("value", ["0x" + "f" * 5000, "1" + "0" * 400, "[1" + "0" * 400 + "]"])
@pytest.mark.parametrize("key", ["learning_rate", "steps", "grid"])
def test_a_setting_of_too_many_digits_is_refused(key, value):
    with pytest.raises(InputError, match=f"the setting training.{key} is "):
        single(Choice("squad", "roberta", "head", device="cpu"), parse_settings([f"{key}={value}"]))


@pytest.mark.parametrize("state", [{"model": None}, {"model": [1]}, {"model": torch.zeros(1)}])
def test_an_official_file_with_an_odd_model_is_refused(state, tmp_path):
    torch.save(state, tmp_path / "adapter.pth")
    with pytest.raises(ValueError, match=r"has no adapter_query\.weight"):
        zeroinit.load_official(llama(layers=2), tmp_path / "adapter.pth")


def stored(root: Path) -> Store:
    for name, data in cells().items():
        put(root / name, data)
    return Store(root)


def test_a_small_store_is_reported(tmp_path):
    store = stored(tmp_path / "store")
    assert "lora" in report(read(str(suite(tmp_path / "own.toml"))), store, pictures=False)


@pytest.mark.parametrize(
    ("file", "change", "sentence"),
    [
        ("config.json", {"sources": None}, "is no cell .sources is not an object"),
        ("config.json", {"device": ["cpu"]}, "is no cell .device is not a text"),
        ("config.json", {"settings": {"training": {}, "task": {}, "method": []}}, "settings.method is not an object"),
        ("config.json", {"seed": 0.5}, "is no cell .seed is not a whole number"),
        ("result.json", {"notes": [1]}, "is no cell .notes is not a list of texts"),
        ("result.json", {"splits": {"report": []}}, "is no cell .splits.report is not an object"),
        (
            "result.json",
            {"splits": {"report": {"n": 0, "n_expected": 1, "scores": {}}}},
            "n is not a whole number above",
        ),
        ("result.json", {"facts": {"status": "done"}}, "is no cell .facts.selection is missing"),
        ("result.json", {"notes": ["\ud800"]}, "result.json cannot be read .it holds half a character"),
        ("result.json", {"seconds": math.nan}, "result.json cannot be read .it holds NaN"),
        ("log.json", {"loss": ["x"]}, "is no cell .loss is not a list of numbers"),
        ("log.json", {"gates": [[0, {}]]}, "is no cell .gates is not a list of steps"),
        ("log.json", {"gates": [[0, {"a": [1.0]}], [1, {"b": [1.0]}]]}, "is no cell .gates is not a list of steps"),
        ("report.jsonl.gz", {"f1": "x"}, "holds no records of squad v1.1"),
        ("report.jsonl.gz", {"id": None}, "holds no records of squad v1.1"),
    ],
)
def test_a_cell_that_is_none_stops_a_report_in_one_sentence(file, change, sentence, tmp_path):
    store = stored(tmp_path / "store")
    path = next(path for path in sorted(store.cells.glob(f"*-zero_init-*/{file}")))
    if path.suffix == ".gz":
        lines = [json.dumps(json.loads(line) | change) for line in gzip.decompress(path.read_bytes()).splitlines()]
        path.write_bytes(gzip.compress("\n".join(lines).encode()))
    else:
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=sentence):
        report(read(str(suite(tmp_path / "own.toml"))), store, pictures=False)


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_a_cell_of_no_numbers_stops_a_plan_in_one_sentence(number, tmp_path):
    store = stored(tmp_path / "store")
    run = single(Choice("squad", "roberta", "zero_init", device="cpu"), {})
    whole = next(path for path in sorted(store.cells.glob("*-zero_init-*"))).rename(store.cells / run.cell)
    told = (whole / "result.json").read_text()
    (whole / "result.json").write_text(told.replace(str(json.loads(told)["facts"]["train_seconds"]), number))
    with pytest.raises(InputError, match=f"result.json cannot be read .it holds {number}, which nothing can"):
        Planned("own", [run], store).overview()


def test_a_tar_whose_folders_have_no_possible_name_holds_no_picture(tmp_path, monkeypatch):
    monkeypatch.setenv("ZEROINIT_CACHE", str(tmp_path / "cache"))
    with tarfile.open(tmp_path / "images.tar", "w") as tar:
        link = tarfile.TarInfo("images")
        link.type, link.linkname = tarfile.SYMTYPE, LONG
        tar.addfile(link)
    path = put(tmp_path / "captions.jsonl", "\n".join(map(json.dumps, caption_lines())).encode())
    with pytest.raises(InputError, match=r"line 1: there is no picture"):
        _coco_files.pictures(path)


@pytest.mark.parametrize("target", ["absent", "loop", "../outside", "/etc/passwd"])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE], ids=["symbolic", "hard"])
def test_a_tars_links_lead_nowhere_else(kind, target, tmp_path, monkeypatch):
    monkeypatch.setenv("ZEROINIT_CACHE", str(tmp_path / "cache"))
    with tarfile.open(tmp_path / "images.tar", "w") as tar:
        link = tarfile.TarInfo("loop")
        link.type, link.linkname = kind, target
        tar.addfile(link)
        tar.addfile(tarfile.TarInfo("loop/within"))
    with pytest.raises(InputError, match=r"images.tar: this cannot be unpacked"):
        unpacked(tmp_path / "images.tar")
    assert {path.name for path in tmp_path.iterdir()} <= {"images.tar", "cache"}


def test_a_short_suite_cannot_ask_for_ever(tmp_path):
    path = tmp_path / "own.toml"
    axes = {"tasks": "squad", "datasets": "v1.1", "backbones": "roberta", "methods": "head"}
    path.write_text("[[grid]]\n" + "".join(f"{axis} = {[name] * 100}\n" for axis, name in axes.items()))
    with pytest.raises(InputError, match=r"own.toml: its grids make 100,000,000 cells, where 100,000 are allowed"):
        read(str(path))


@pytest.mark.parametrize("text", ["=cmd()", " =1", "\t@SUM(1)", "-1+1", "+a", "＝cmd()", "＠SUM(1)"])
def test_words_that_a_spreadsheet_would_run_are_words(text):
    assert plain.inert(text) == f"'{text}"
    assert plain.inert(f"a{text}") == f"a{text}"


def test_an_escape_in_an_id_does_not_reach_the_terminal(tmp_path, capsys):
    known = {"\x1b[31m\u202e": {**problems()["2"], "image": None}, "2": problems()["2"]}
    references = put(tmp_path / "problems.json", json.dumps(known).encode())
    said = put(tmp_path / "said.json", b'{"2": "The answer is (C)."}')
    tasks.get("scienceqa").score(said, references)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.isprintable()
    assert "1 of 2 questions have no prediction" in line


def test_the_plain_picture_is_one(tmp_path):
    assert decode.rgb(put(tmp_path / "a.png", PLAIN)).size == (4, 4)


@pytest.mark.parametrize(
    ("kind", "kwargs", "sentence"),
    [
        ("keywords:existence", {"keywords": ["("]}, "these do not fit keywords:existence"),
        ("keywords:frequency", {"keyword": "(a+)+$"}, "a pattern that repeats a group can take for ever"),
        ("combination:repeat_prompt", {"prompt_to_repeat": 3}, "these do not fit combination:repeat_prompt"),
        ("language:response_language", {"language": "_"}, "these do not fit language:response_language"),
        ("detectable_format:multiple_sections", {"section_spliter": "[", "num_sections": 2}, "these do not fit"),
    ],
)
def test_what_a_checker_would_stumble_over_is_refused_before_a_run(kind, kwargs, sentence, tmp_path):
    line = json.dumps({"key": 1, "prompt": "Say.", "instruction_id_list": [kind], "kwargs": [kwargs]})
    with pytest.raises(InputError, match=rf"x\.jsonl: line 1.*{sentence}"):
        _instruct_files.read(put(tmp_path / "x.jsonl", line.encode()), "ifeval")


def test_a_response_of_no_language_is_told_to_nobody(tmp_path, capfd, caplog):
    check = ifeval_rules.Check("language:response_language", {"language": "de"})
    assert check.passes("12 + 34")
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_document_frequencies_of_half_characters_are_refused(tmp_path):
    text = json.dumps({"format": 1, "pictures": 1, "phrases": {"a \ud800": 1}})
    with pytest.raises(InputError, match=r"df.json: 'phrases' is no object of counts up to 1"):
        Frequencies.read(put(tmp_path / "df.json", text.encode()))


def test_an_official_file_whose_tensors_have_no_values_is_refused(tmp_path):
    torch.save({"adapter_query.weight": torch.empty(10, 64, device="meta")}, tmp_path / "adapter.pth")
    with pytest.raises(ValueError, match=r"adapter\.pth has tensors without values"):
        zeroinit.load_official(llama(layers=2), tmp_path / "adapter.pth")


IMPOSSIBLE = {"dtype": ("flo at32", "int64"), "init_std": (-1.0, math.inf), "length": (0,), "layers": (0,)}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, odd in IMPOSSIBLE.items() for value in odd])
def test_fields_that_nothing_can_be_made_of_are_refused(field, value):
    having = [cls for cls in map(methods.get, methods.names()) if field in cls.__dataclass_fields__]
    assert len(having) > 3
    for cls in having:
        with pytest.raises(ValueError, match=field):
            zeroinit.attach(llama(layers=2), cls.from_fields({field: value}))
