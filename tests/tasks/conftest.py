"""Small files and small runs that the suite's tests share."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.bench.config import Choice, Run
from tasks.bench.suite import single
from tasks.mini import squad

SMALL = {"steps": 2, "batch_size": 4, "fit_sample": 4, "eval_batch_size": 8}


def tiny_llama() -> tuple[Any, Any]:
    """The mini tier's language model, and its tokenizer."""
    from tasks.backbones import llama

    host = llama.lm(single(Choice("instruct", "llama", "frozen", device="cpu"), {}))
    return host.model, host.tokenizer


@pytest.fixture
def document() -> dict[str, Any]:
    """A fresh SQuAD document of 3 articles, 30 questions."""
    return copy.deepcopy(squad.document("fit", 30, seed=1))


@pytest.fixture
def squad_file(tmp_path: Path, document: dict[str, Any]) -> Path:
    path = tmp_path / "small.json"
    path.write_text(json.dumps(document))
    return path


@pytest.fixture
def training_file(tmp_path: Path) -> Path:
    """Other articles than those of `squad_file`."""
    path = tmp_path / "training.json"
    path.write_text(json.dumps(squad.document("fit", 30, seed=2)))
    return path


@pytest.fixture
def small_run(squad_file: Path) -> Callable[..., Run]:
    """A tiny cell of a method, with flags and settings of one's own."""

    def make(method: str = "zero_init", settings: dict[str, Any] | None = None, **flags: Any) -> Run:
        choice = Choice("squad", "roberta", method, **{"eval": squad_file, "device": "cpu"} | flags)
        return single(choice, SMALL | (settings or {}))

    return make
