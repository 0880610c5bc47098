"""The commands: bad input is one sentence and exit code 2, a failing cell stops nothing, report is pure."""

import json
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tasks.__main__ import app
from tasks.bench import commandline
from tasks.bench.store import Store

GRID = "[[grid]]\ntasks = ['squad']\nbackbones = ['roberta']\nmethods = ['head']\n%s"
FAST = ["--set", "steps=1", "--set", "fit_sample=2"]


def tasks_command(*arguments: object) -> int:
    return commandline.guarded(app, [str(argument) for argument in arguments])


def squad_command(*arguments: object) -> int:
    return commandline.main("squad", [str(argument) for argument in arguments])


def refused(capsys: pytest.CaptureFixture[str], code: int) -> str:
    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--eval", "nowhere.json"], "--eval nowhere.json does not exist"),
        (["--train", "nowhere.json"], "--train nowhere.json does not exist"),
        (["--tier", "big"], "--tier 'big' does not exist"),
        (["--backbone", "vgg"], "there is no backbone 'vgg': choose one of "),
        (["--method", "magic"], "there is no method 'magic'"),
        (["--set", "speed=9"], "there is no setting 'speed': the known ones are"),
        (["--limit", "few"], "Invalid value for '--limit'"),
        (["--limit", "-1"], "--limit is -1: give 1 or more"),
        (["--color", "red"], "No such option: --color"),
        (["--data", "."], "--data . holds no train-v1.1.json"),
        (["--adapter", "."], "adapter_config.json cannot be read"),
        (["--set", "method.layers=99"], "--method zero_init does not fit"),
        (["--method", "\x1b[31m\u202e.py"], "--method \ufffd[31m\ufffd.py cannot be used"),
        (["--checkpoint", "nowhere/at-all"], "pass --checkpoint FOLDER"),
    ],
)
def test_bad_flags_are_one_sentence(arguments, sentence, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    assert sentence in refused(capsys, squad_command(*FAST, "--results", tmp_path, *arguments))


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.json", b"", "line 1, column 1 is not JSON"),
        ("a.json", b"{\n 'x': 1}", "line 2, column 2 is not JSON"),
        ("a.json", b"\xff\xfe\x00", "byte 0 is not UTF-8"),
        ("a.json.gz", b"plain", "not a whole gzip file"),
        ("a.json", b"[]", "there is no 'data'; give a list"),
        ("a.json", b'{"data": []}', "there is no usable question"),
        ("a.json", b"[" * 100_000, "nested too deeply"),
    ],
)
def test_bad_files_are_one_sentence_with_their_name(name, content, sentence, capsys, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    line = refused(capsys, squad_command(*FAST, "--results", tmp_path / "r", "--eval", path))
    assert f"error: {path}: " in line
    assert sentence in line


def test_a_folder_for_a_file_is_refused(capsys, tmp_path):
    assert "cannot be read" in refused(capsys, squad_command("--eval", tmp_path, "--results", tmp_path / "r"))


def test_one_cell_prints_its_table_and_runs_once(capsys, squad_file, tmp_path):
    arguments = [*FAST, "--eval", squad_file, "--results", tmp_path / "r", "--method", "head"]
    assert squad_command(*arguments) == 0
    first = capsys.readouterr()
    assert "| head " in first.out
    assert squad_command(*arguments) == 0
    again = capsys.readouterr()
    assert again.out == first.out
    assert "is there already" in again.err


def test_bad_records_are_counted_when_they_may_be_left_out(capsys, document, tmp_path):
    document["data"][0]["paragraphs"][0]["qas"][0]["answers"][0]["answer_start"] += 2
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(document))
    arguments = [*FAST, "--method", "frozen", "--eval", path, "--results", tmp_path / "r"]
    line = refused(capsys, squad_command(*arguments))
    assert f"{path}: data[0].paragraphs[0].qas[0].answers[0]: " in line
    assert squad_command(*arguments, "--skip-bad", "1") == 0
    assert "29/30" in capsys.readouterr().out


def test_a_diverging_cell_is_one_sentence_and_exit_code_1(capsys, squad_file, tmp_path):
    arguments = ["--method", "full", "--set", "learning_rate=1e30", "--set", "clip=1e30", "--set", "steps=4"]
    assert squad_command(*arguments, "--eval", squad_file, "--results", tmp_path) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "lower learning_rate" in line
    (row,) = Store(tmp_path).rows()
    assert row["status"] == "failed"


def test_list_names_everything(capsys):
    assert tasks_command("list") == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert {"squad"} <= set(lines["task"].split())
    assert {"roberta"} <= set(lines["backbone"].split())
    assert {"zero_init", "frozen"} <= set(lines["method"].split())
    assert {"mini", "pocket"} <= set(lines["suite"].split())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("tier =", "this is not TOML"),
        ("colour = 1", "has no key 'colour': the known ones are tier, grid, set"),
        ("[[grid]]\nmethods = ['head']", "[[grid]] does not say tasks; add it"),
        ("[[grid]]\nmodels = ['x']", "[[grid]] has no key 'models'"),
        ("[[grid]]\ntasks = 'squad'\nbackbones = ['roberta']\nmethods = ['head']", "takes lists"),
        (GRID % "seeds = [1.5]", "seeds of a [[grid]] holds 1.5; give whole numbers alone"),
        (GRID % "seeds = [0, true]", "seeds of a [[grid]] holds True; give whole numbers alone"),
        (GRID % "seeds = ['../../x']", "seeds of a [[grid]] holds '../../x'; give whole numbers alone"),
        (GRID % "datasets = [['v1.1']]", "datasets of a [[grid]] holds ['v1.1']; give strings alone"),
        ("[[grid]]\ntasks = ['squad']\nbackbones = ['roberta']\nmethods = [1]", "methods of a [[grid]] holds 1; give"),
        ("tier = 3", "tier is 3; give a string"),
        ("[[set]]\nwhen = { model = 'x' }", "[[set]] when has no key 'model'"),
        (
            "[[grid]]\ntasks = ['squad']\nbackbones = ['roberta']\nmethods = ['head']\n[[set]]\nstep = 3",
            "there is no setting 'step': the known ones are",
        ),
    ],
)
def test_a_wrong_suite_names_what_is_known(text, sentence, capsys, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    assert sentence in refused(capsys, tasks_command("plan", path))


def test_a_setting_for_one_method_leaves_the_others_alone(capsys, tmp_path):
    arguments = ["plan", "mini", "--results", tmp_path, "--device", "cpu"]
    plans = []
    for settings in ([], ["--set", "lora.rank=2"]):
        assert tasks_command(*arguments, *settings) == 0
        plans.append(capsys.readouterr().out.splitlines())
    changed = [one for one, other in zip(*plans, strict=True) if one != other]
    assert changed == [line for line in plans[0] if "-lora-" in line]
    assert changed
    assert "there is no setting 'rank'" in refused(capsys, tasks_command(*arguments, "--set", "rank=2"))


def test_an_unknown_suite_names_the_known(capsys):
    assert "choose one of mini, mini-all, mini_rates, paper, pocket" in refused(capsys, tasks_command("plan", "maxi"))


def test_plan_runs_nothing(capsys, tmp_path):
    assert tasks_command("plan", "mini", "--results", tmp_path / "r", "--device", "cpu") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith("missing    unknown  squad-v1.1-roberta-")]) == 18
    assert all(line.startswith("missing    unknown  ") for line in lines[:119])
    assert lines[119:] == ["", "119 cells: 119 missing; to do: 119 of unknown time"]
    assert not (tmp_path / "r").exists()


def test_a_failing_cell_never_stops_the_suite(capsys, squad_file, tmp_path):
    suite = tmp_path / "mixed.toml"
    suite.write_text(
        "[[grid]]\ntasks = ['squad']\nbackbones = ['roberta']\nmethods = ['full', 'zero_init', 'head']\n"
        "[[set]]\nsteps = 3\nfit_sample = 2\n"
        "[[set]]\nwhen = { method = 'full' }\nlearning_rate = 1e30\nclip = 1e30\n"
        "[[set]]\nwhen = { method = 'zero_init' }\nmethod.layers = 99\n"
    )
    arguments = [suite, "--eval", squad_file, "--results", tmp_path / "r", "--device", "cpu"]
    assert tasks_command("run", *arguments, "--jobs", 2) == 1
    captured = capsys.readouterr()
    assert "2 of 3 cells failed: " in captured.err
    assert "lower learning_rate" in captured.err
    assert "does not fit" in captured.err
    assert "Traceback" not in captured.err
    assert "| head " in captured.out
    states = {row["method"]: row["status"] for row in Store(tmp_path / "r").rows()}
    assert states == {"full": "failed", "zero_init": "failed", "head": "partial"}
    assert tasks_command("plan", *arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.split()[0] for line in lines[:3]) == ["failed", "failed", "partial"]
    assert lines[4].startswith("3 cells: 2 failed, 1 partial; to do: ")
    before = (tmp_path / "r/results.csv").read_bytes()
    (tmp_path / "r/results.csv").unlink()
    assert tasks_command("report", suite, "--results", tmp_path / "r") == 0
    assert (tmp_path / "r/results.csv").read_bytes() == before
    assert (tmp_path / "r/mixed.md").read_text().startswith(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("predictions", "sentence"),
    [
        ("[]", "give an object"),
        ('{"%s": 3}', "is a number; give a string"),
        ("{", "is not JSON"),
    ],
)
def test_bad_predictions_are_one_sentence(predictions, sentence, capsys, squad_file, tmp_path, document):
    first = document["data"][0]["paragraphs"][0]["qas"][0]["id"]
    path = tmp_path / "said.json"
    path.write_text(predictions.replace("%s", first))
    line = refused(capsys, tasks_command("score", "squad", "--predictions", path, "--references", squad_file))
    assert str(path) in line
    assert sentence in line


def test_score_v2_wants_every_question_and_takes_probabilities(capsys, document, tmp_path):
    questions = [q for a in document["data"] for p in a["paragraphs"] for q in p["qas"]]
    questions[0]["answers"] = []
    references, said, odds = (tmp_path / name for name in ("ref.json", "said.json", "odds.json"))
    references.write_text(json.dumps(document))
    said.write_text(json.dumps({q["id"]: "wrong" for q in questions[1:]}))
    arguments = ["score", "squad", "--predictions", said, "--references", references]
    assert "1 of 30 questions have no prediction" in refused(capsys, tasks_command(*arguments))
    said.write_text(json.dumps({q["id"]: q["answers"][0]["text"] if q["answers"] else "" for q in questions}))
    assert tasks_command(*arguments) == 0
    scores = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (scores["exact"], scores["HasAns_total"], scores["NoAns_total"]) == (100.0, 29, 1)
    assert "best_exact" not in scores
    odds.write_text(json.dumps({q["id"]: 0.25 for q in questions}))
    assert tasks_command(*arguments, f"--na-prob-file={odds}") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["best_exact"] == 100.0
    assert "is no option of this task's score" in refused(capsys, tasks_command(*arguments, "--dialect", "strict"))


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_suite_leaves_nothing_running(how, tmp_path):
    command = [sys.executable, "-m", "tasks", "run", "mini", "--results", tmp_path / "store", "--set", "steps=100000"]
    suite = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    process = psutil.Process(suite.pid)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("store/.locks/*.lock")):
        assert time.monotonic() < deadline, "no cell began"
        time.sleep(0.1)
    workers = process.children(recursive=True)
    suite.send_signal(how)
    _, said = suite.communicate(timeout=30)
    assert not psutil.wait_procs(workers, timeout=30)[1]
    if how != signal.SIGKILL:
        assert suite.returncode == 130
        assert said.splitlines()[-1] == "stopped; finished cells are kept, and the same command goes on from there"
        assert "Traceback" not in said
        assert [row["status"] for row in Store(tmp_path / "store").rows()] == ["cancelled"]
