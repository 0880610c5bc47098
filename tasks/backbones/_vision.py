"""The frozen encoders that look at pictures for a language model: CLIP by transformers, and any ViT of timm.

Each depth gives its global token (CLS; the mean of all tokens where there is none) after the encoder's last norm,
which makes depths alike in scale.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch

from tasks.backbones import _checkpoint, vit
from tasks.bench import cache
from tasks.bench.config import TIERS, Run
from tasks.bench.documents import Entry, read_json
from tasks.bench.errors import InputError
from tasks.bench.pictures import Encode, Encoder, Pictures, evenly
from tasks.outputs.classes import MOMENTS

CLIP = "openai/clip-vit-large-patch14"
CLIP_MOMENTS = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def shown(run: Run) -> Pictures:
    """The pictures of a run, by its task's fields `encoder`, `depths` and `bottleneck`."""
    fields, tier = run.task, run.choice.tier
    name = fields.encoder or {"paper": CLIP}.get(tier, tier)
    return pictures(name, fields.depths, fields.bottleneck, run.device)


def pictures(name: str, depths: int, bottleneck: int | None, device: str) -> Pictures:
    """Pictures as an encoder sees them, the features kept in the cache."""
    return Pictures(encoder(name, depths), bottleneck, cache.root() / "features", device)


def encoder(name: str, depths: int) -> Encoder:
    """An encoder by name: a tier for its ViT, a CLIP model's folder or hub name, or a timm ViT's file, folder or name.

    Raises:
        InputError: it cannot be had, or has fewer blocks than depths are wanted.
    """
    path = Path(name)
    if path.is_dir() and (path / "config.json").is_file():
        from_transformers = read_json(path / "config.json").has("model_type")
    else:
        from_transformers = "/" in name and not path.exists() and not name.startswith("timm/")
    return _clip(name, depths) if from_transformers else _timm(name, depths)


def _clip(name: str, depths: int) -> Encoder:
    place = _checkpoint.folder(name, ("config.json", "preprocessor_config.json", "model.safetensors"))
    config = read_json(place / "config.json")
    kind = config.text("model_type")
    if kind not in ("clip", "clip_vision_model"):
        raise InputError(f"the encoder {name} is of type {kind}: give a CLIP model, or a timm ViT")
    if config.has("vision_config"):
        config = Entry(config.value["vision_config"], config.document, "vision_config")
    mean, deviation = CLIP_MOMENTS
    blocks = evenly(depths, config.integer("num_hidden_layers"))
    width, size = config.integer("hidden_size"), config.integer("image_size")
    sha256 = _checkpoint.weights_sha256(place)
    load = partial(_load_clip, place, blocks)
    return Encoder(_checkpoint.title(name), sha256, blocks, width, size, mean, deviation, load)


def _load_clip(place: Path, blocks: Sequence[int], device: str) -> Encode:
    from transformers import CLIPVisionModel

    model: Any = CLIPVisionModel.from_pretrained(place, dtype=torch.float32)
    model.eval().to(device)

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        states = model(pixel_values=pixels, output_hidden_states=True).hidden_states
        return model.post_layernorm(torch.stack([states[block][:, 0] for block in blocks], dim=1))

    return encode


def _timm(name: str, depths: int) -> Encoder:
    source = vit.source(name) if name in TIERS else vit.source("paper", name)
    with torch.device("meta"):  # its shape, without its numbers
        shape: Any = source.build(0.0)
    blocks = evenly(depths, len(shape.blocks))
    (size, _) = shape.patch_embed.img_size
    mean, deviation = _moments(name)
    load = partial(_load_timm, source, blocks)
    return Encoder(source.name, source.sha256, blocks, shape.embed_dim, size, mean, deviation, load)


def _moments(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """What timm says of the weights; Google's are for -1 to 1, those of mini and pocket for ImageNet's moments."""
    if name in ("mini", "pocket"):
        return MOMENTS["imagenet"]
    if (Path(name) / "config.json").is_file():
        told = read_json(Path(name) / "config.json").value.get("pretrained_cfg", {})
    else:
        known = None if Path(name).exists() else timm.get_pretrained_cfg(name.removeprefix("timm/"))
        told = known.to_dict() if known else {}
    mean, deviation = MOMENTS["inception"]
    return tuple(told.get("mean", mean)), tuple(told.get("std", deviation))


def _load_timm(source: vit.Source, blocks: Sequence[int], device: str) -> Encode:
    model: Any = source.load().eval().to(device)

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        tokens = model.forward_intermediates(
            pixels,
            indices=[block - 1 for block in blocks],
            return_prefix_tokens=model.has_class_token,
            norm=True,
            output_fmt="NLC",
            intermediates_only=True,
        )
        taken = [each[1][:, 0] if model.has_class_token else each.mean(1) for each in tokens]
        return torch.stack(taken, dim=1)

    return encode
