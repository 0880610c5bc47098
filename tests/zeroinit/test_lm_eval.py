"""The language model evaluation harness scores an adapted model as its own logits do, offline."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import PreTrainedTokenizerFast

import zeroinit
from tests.zeroinit.opened import VOCABULARY, llama, logits, opened

lm_eval = pytest.importorskip("lm_eval", reason="lm-eval is not installed (the extra `dev`)")

# Contexts of different length: batches of three need padding.
QUESTIONS = [" ".join(f"w{(7 * row + 3 * word) % 50}" for word in range(3 + 2 * row)) for row in range(5)]
CHOICES = [
    ["w1 w2", "w3", "w4 w5 w6"],
    ["w9", "w8 w7", "w6"],
    ["w1", "w2", "w3"],
    ["w0 w0", "w1 w1", "w2"],
    ["w5", "w6 w1", "w7"],
]
NEW = 4


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    words = ["<pad>", "<bos>", "<unk>", *(f"w{i}" for i in range(VOCABULARY - 3))]
    wordlevel = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    wordlevel.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<pad>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=wordlevel, **special)


def tasks(folder: Path) -> list[dict[str, Any]]:
    """A multiple choice and a generation over the same local file."""
    rows = [{"q": question, "choices": choices} for question, choices in zip(QUESTIONS, CHOICES, strict=True)]
    file = folder / "questions.jsonl"
    file.write_text("\n".join(json.dumps({**row, "gold": i % 3}) for i, row in enumerate(rows)) + "\n")
    shared = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(file)}},
        "test_split": "test",
        "doc_to_text": "{{q}}",
        "num_fewshot": 0,
    }
    choice = {
        "task": "choice",
        "output_type": "multiple_choice",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "gold",
    }
    until = {
        "task": "until",
        "output_type": "generate_until",
        "doc_to_target": "w1",
        "generation_kwargs": {"until": ["<pad>"], "max_gen_toks": NEW, "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    return [{**shared, **choice}, {**shared, **until}]


def evaluate(model: nn.Module, tokenizer: PreTrainedTokenizerFast, folder: Path) -> tuple[list[list[float]], list[str]]:
    """The log-likelihood of each choice of each question, and what is generated."""
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=3, max_length=32, device="cpu")
    manager = TaskManager(include_defaults=False)  # reading thousands of tasks takes longer than ours
    output = lm_eval.simple_evaluate(harness, tasks=tasks(folder), task_manager=manager, bootstrap_iters=0)
    samples = {name: sorted(found, key=lambda s: s["doc_id"]) for name, found in output["samples"].items()}
    scores = [[score[0] for score in sample["filtered_resps"]] for sample in samples["choice"]]
    return scores, [sample["filtered_resps"][0] for sample in samples["until"]]


@torch.no_grad()
def by_hand(model: nn.Module, tokenizer: PreTrainedTokenizerFast) -> tuple[list[list[float]], list[str]]:
    """The same from whole passes over single rows, with no padding and no cache."""
    scores, texts = [], []
    for question, choices in zip(QUESTIONS, CHOICES, strict=True):
        context = tokenizer(question).input_ids
        scores.append([])
        for choice in choices:
            answer = tokenizer(choice).input_ids
            log = logits(model, torch.tensor([context + answer]))[0, len(context) - 1 : -1].log_softmax(-1)
            scores[-1].append(log.gather(1, torch.tensor(answer)[:, None]).sum().item())
        row = list(context)
        while len(row) < len(context) + NEW:
            row.append(int(logits(model, torch.tensor([row]))[0, -1].argmax()))
        texts.append(tokenizer.decode(row[len(context) :], skip_special_tokens=True))
    return scores, texts


def test_harness_agrees_with_logits(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    model = opened(llama)
    scores, texts = evaluate(model, tokenizer, tmp_path)
    expected_scores, expected_texts = by_hand(model, tokenizer)
    for found, expected in zip(scores, expected_scores, strict=True):
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert texts == expected_texts

    with zeroinit.disabled(model):
        frozen_scores, frozen_texts = evaluate(model, tokenizer, tmp_path)
        assert frozen_scores[0] == pytest.approx(by_hand(model, tokenizer)[0][0], rel=1e-4, abs=1e-4)
    assert all(a != pytest.approx(b, abs=1e-2) for a, b in zip(scores, frozen_scores, strict=True))
    assert texts != frozen_texts
