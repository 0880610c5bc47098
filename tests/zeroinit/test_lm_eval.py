"""A real `lm_eval` task, offline, on an adapted model: its log-likelihoods are the adapted model's own."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

import zeroinit
from tests.zeroinit.opened import VOCABULARY, llama, opened

QUESTIONS = [
    {"question": "w3 w4 w5 w6 w7 w8", "choices": ["w9 w10", "w11"], "answer": 0},
    {"question": "w12", "choices": ["w13", "w14 w15 w16"], "answer": 1},
    {"question": "w17 w18 w19", "choices": ["w20", "w21"], "answer": 1},
]


@pytest.fixture(scope="module")
def tokenizer() -> transformers.PreTrainedTokenizerFast:
    words = {"[PAD]": 0, "[BOS]": 1, "[UNK]": 2} | {f"w{i}": i for i in range(3, VOCABULARY)}
    whole = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    whole.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=whole, pad_token="[PAD]", bos_token="[BOS]", eos_token="[BOS]", unk_token="[UNK]"
    )


def evaluate(model, tokenizer, folder: Path):
    """The harness's samples, with batches that pad."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    (folder / "tiny.yaml").write_text(
        json.dumps(
            {
                "task": "tiny_choice",
                "dataset_path": "json",
                "dataset_kwargs": {"data_files": {"test": str(folder / "questions.jsonl")}},
                "test_split": "test",
                "output_type": "multiple_choice",
                "doc_to_text": "{{question}}",
                "doc_to_choice": "{{choices}}",
                "doc_to_target": "{{answer}}",
                "metric_list": [{"metric": "acc"}],
                "num_fewshot": 0,
            }
        )
    )
    wrapped = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    results = simple_evaluate(model=wrapped, tasks=["tiny_choice"], task_manager=manager, bootstrap_iters=0)
    assert results is not None
    samples = sorted(results["samples"]["tiny_choice"], key=lambda sample: sample["doc_id"])
    return [[float(scored[0]) for scored in sample["filtered_resps"]] for sample in samples]


def by_hand(model, tokenizer) -> list[list[float]]:
    """Each choice alone, unpadded."""
    found = []
    for row in QUESTIONS:
        start = tokenizer(row["question"], add_special_tokens=False).input_ids
        found.append([])
        for choice in row["choices"]:
            end = tokenizer(choice, add_special_tokens=False).input_ids
            with torch.no_grad():
                scores = model(torch.tensor([start + end])).logits[0].log_softmax(-1)
            picked = [scores[len(start) + place - 1, token].item() for place, token in enumerate(end)]
            found[-1].append(sum(picked))
    return found


def test_the_harness_sees_the_adapted_model(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    model = opened(llama)
    adapted = evaluate(model, tokenizer, tmp_path)
    for ours, theirs in zip(by_hand(model, tokenizer), adapted, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
    with zeroinit.disabled(model):
        frozen = evaluate(model, tokenizer, tmp_path)
    assert max(abs(a - b) for x, y in zip(adapted, frozen, strict=True) for a, b in zip(x, y, strict=True)) > 0.1
