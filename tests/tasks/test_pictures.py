"""Features of pictures: right, computed once, safe under several writers; and bad pictures refused in a sentence."""

import threading
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel, CLIPVisionModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from tasks.backbones import _vision, vit
from tasks.bench import pictures as bench
from tasks.bench.config import Choice
from tasks.bench.decode import any_colors
from tasks.bench.errors import InputError
from tasks.bench.pictures import Encoder, Pictures
from tasks.bench.run import run
from tasks.bench.store import Store
from tasks.bench.suite import single
from tests.tasks.conftest import SMALL
from zeroinit.checkpoint import TENSORS

HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


class Counted:
    """An encoder of two depths that can be told how often it was loaded and what it looked at."""

    def __init__(self, **changes: object) -> None:
        self.loaded = self.seen = 0
        fields = {"name": "counted", "sha256": "ab", "blocks": (1, 2), "width": 3, "size": 8}
        fields |= {"mean": HALF[0], "deviation": HALF[1], "load": self.load}
        self.encoder = Encoder(**{**fields, **changes})

    def load(self, device: str) -> bench.Encode:
        self.loaded += 1
        return self.encode

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        self.seen += len(pixels)
        return torch.stack([pixels.mean((2, 3)), pixels.amax((2, 3))], dim=1)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Five pictures of different shapes."""
    draw = np.random.default_rng(0)
    found = []
    for number in range(5):
        found.append(tmp_path / f"{number}.png")
        Image.fromarray(draw.integers(0, 256, (9 + 4 * number, 20, 3), dtype=np.uint8)).save(found[-1])
    return found


def test_features_are_the_encoders_and_absent_pictures_are_masked(paths, tmp_path):
    counted = Counted()
    shown = Pictures(counted.encoder, 4, tmp_path / "cache")
    features, mask = shown.features([paths[1], None, paths[0]])
    assert (features.dtype, features.shape, mask.tolist()) == (torch.float32, (3, 2, 3), [True, False, True])
    assert (shown.condition.depths, shown.condition.width, shown.condition.bottleneck) == (2, 3, 4)
    assert features[1].abs().max() == 0
    expected = counted.encode(torch.stack([shown._pixels(paths[1]), shown._pixels(paths[0])]))
    torch.testing.assert_close(features[[0, 2]], expected)


def test_pictures_are_looked_at_once_whoever_asks(paths, tmp_path, capsys):
    first = Counted()
    shown = Pictures(first.encoder, None, tmp_path / "cache")
    shown.prepare([*paths, None, paths[0]])
    computed, _ = shown.features(paths)
    assert (first.loaded, first.seen) == (1, 5)
    assert "features of 5 pictures by counted: 5 of them computed, 0.0 MiB in " in capsys.readouterr().err
    for _ in range(2):  # a second epoch, and a second run
        later = Counted()
        shown = Pictures(later.encoder, None, tmp_path / "cache")
        shown.prepare(paths)
        assert torch.equal(shown.features(paths)[0], computed)
        assert (later.loaded, later.seen) == (0, 0)
    assert "all of them known" in capsys.readouterr().err


def test_a_feature_belongs_to_content_and_not_to_a_name(paths, tmp_path):
    counted = Counted()
    shown = Pictures(counted.encoder, None, tmp_path / "cache")
    shown.prepare(paths[:2])
    paths[1].rename(tmp_path / "renamed.png")
    paths[1].write_bytes(paths[2].read_bytes())
    features, _ = shown.features([tmp_path / "renamed.png", paths[1]])
    assert counted.seen == 3
    assert not torch.equal(features[0], features[1])


@pytest.mark.parametrize(
    "change",
    [{"sha256": "cd"}, {"blocks": (1, 3)}, {"size": 6}, {"mean": (0.1, 0.5, 0.5)}, {"deviation": (1.0, 1.0, 1.0)}],
)
def test_whatever_makes_another_feature_has_its_own_place(change, paths, tmp_path):
    for counted in (Counted(), Counted(**change)):
        Pictures(counted.encoder, None, tmp_path / "cache").prepare(paths)
        assert counted.seen == 5


def test_a_damaged_feature_is_computed_again(paths, tmp_path):
    counted = Counted()
    shown = Pictures(counted.encoder, None, tmp_path / "cache")
    before, _ = shown.features(paths)
    files = sorted((tmp_path / "cache").rglob("*.npy"))
    files[0].write_bytes(files[0].read_bytes()[:-1])
    files[1].write_bytes(b"")
    np.save(files[2], np.zeros(3))
    files[3].unlink()
    assert torch.equal(shown.features(paths)[0], before)
    assert counted.seen == 5 + 4


def test_two_writers_agree(paths, tmp_path):
    shown = [Pictures(Counted().encoder, None, tmp_path / "cache") for _ in range(4)]
    found: list[torch.Tensor] = []
    threads = [threading.Thread(target=lambda each=each: found.append(each.features(paths)[0])) for each in shown]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(torch.equal(each, found[0]) for each in found)
    assert len([path for path in (tmp_path / "cache").rglob("*") if path.is_file()]) == 5


def test_a_cache_that_cannot_be_written_is_one_sentence(paths, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(InputError, match=r"cannot be written .* set ZEROINIT_CACHE"):
        Pictures(Counted().encoder, None, tmp_path / "cache").features(paths)


# Pictures


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "LA", "I;16"])
def test_pictures_in_any_colors_become_three(mode, tmp_path):
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    Image.new(mode, (12, 10), 1 if mode not in ("RGBA", "CMYK", "LA") else None).save(path)
    assert (any_colors(path).mode, any_colors(path).size) == ("RGB", (12, 10))


@pytest.mark.parametrize("kind", ["missing", "folder", "truncated", "text", "empty", "bomb", "small bomb"])
def test_what_is_no_picture_is_refused_by_name(kind, tmp_path, monkeypatch):
    path = tmp_path / "x.jpg"
    Image.effect_noise((60, 60), 50).save(path)
    sentence = "this picture cannot be decoded"
    match kind:
        case "missing":
            path.unlink()
            sentence = "there is no such picture"
        case "folder":
            path.unlink()
            path.mkdir()
            sentence = "there is no such picture"
        case "truncated":
            path.write_bytes(path.read_bytes()[:-300])
        case "text":
            path.write_text("hello")
        case "empty":
            path.write_bytes(b"")
        case "bomb":
            monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
            sentence = "more than 1,000 pixels"
        case "small bomb":  # Pillow itself only warns up to twice its limit
            monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
            sentence = "more than 3,000 pixels"
    with pytest.raises(InputError, match=f"{path}: .*{sentence}"):
        Pictures(Counted().encoder, None, tmp_path / "cache").prepare([path])
    assert not list((tmp_path / "cache").rglob("*.npy"))


@pytest.mark.parametrize("shape", [(64, 48), (40, 90), (20, 20), (8, 10)])
def test_pixels_are_those_of_clips_own_preprocessing(shape, tmp_path):
    (mean, deviation), size = _vision.CLIP_MOMENTS, 16
    Image.effect_mandelbrot(shape, (-2, -1, 1, 1), 40).convert("RGB").save(tmp_path / "x.png")
    shown = Pictures(Counted(size=size, mean=mean, deviation=deviation).encoder, None, tmp_path / "cache")
    official = CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    theirs = official(Image.open(tmp_path / "x.png"), return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(shown._pixels(tmp_path / "x.png"), theirs, atol=1e-5, rtol=0)


# Encoders


def test_depths_go_in_even_steps_to_the_last():
    assert bench.evenly(4, 12) == (3, 6, 9, 12)
    assert bench.evenly(1, 24) == (24,)
    assert bench.evenly(3, 4) == (1, 3, 4)
    for depths in (0, 5):
        with pytest.raises(InputError, match=f"depths is {depths}, but the encoder has 4 blocks: give 1 to 4"):
            bench.evenly(depths, 4)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("ZEROINIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_vit_gives_its_normalized_class_token_of_each_depth(paths, cache):
    shown = _vision.pictures("mini", 2, None, "cpu")
    features, _ = shown.features(paths)
    model = vit.source("mini").load().eval()
    states: list[torch.Tensor] = []
    for block in model.blocks:
        block.register_forward_hook(lambda _module, _inputs, output: states.append(output))
    with torch.no_grad():
        last = model.forward_features(torch.stack([shown._pixels(path) for path in paths]))
        expected = torch.stack([model.norm(states[1])[:, 0], last[:, 0]], dim=1)
    torch.testing.assert_close(features, expected)
    assert (shown.encoder.blocks, shown.condition.width) == ((2, 4), 64)
    assert len(list((cache / "features").rglob("*.npy"))) == 5


def test_a_vit_without_class_token_gives_the_mean(paths, cache, tmp_path):
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, class_token=False, global_pool="avg", depth=2)
    timm.models.save_for_hf(
        model, tmp_path / "saved", model_args={"class_token": False, "depth": 2}, safe_serialization=True
    )
    shown = _vision.pictures(str(tmp_path / "saved"), 1, None, "cpu")
    features, _ = shown.features(paths[:2])
    with torch.no_grad():
        tokens = model.eval().forward_features(torch.stack([shown._pixels(path) for path in paths[:2]]))
    assert shown.encoder.mean == HALF[0]
    torch.testing.assert_close(features[:, 0], tokens.mean(1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", [CLIPModel, CLIPVisionModel])
def test_clip_gives_its_pooled_token_of_each_depth(kind, paths, cache, tmp_path):
    tiny = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 4, "num_attention_heads": 2}
    config = CLIPConfig(vision_config={**tiny, "image_size": 32, "patch_size": 8}, text_config=tiny)
    torch.manual_seed(0)
    model = kind(config if kind is CLIPModel else config.vision_config).eval()
    model.save_pretrained(tmp_path / "clip")
    shown = _vision.pictures(str(tmp_path / "clip"), 2, 8, "cpu")
    features, _ = shown.features(paths)
    tower = model.vision_model if kind is CLIPModel else model
    pixels = torch.stack([shown._pixels(path) for path in paths])
    with torch.no_grad():
        said = tower(pixel_values=pixels, output_hidden_states=True)
        expected = torch.stack([tower.post_layernorm(said.hidden_states[2][:, 0]), said.pooler_output], dim=1)
    torch.testing.assert_close(features, expected)
    assert (shown.encoder.size, shown.encoder.mean) == (32, _vision.CLIP_MOMENTS[0])


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("openai/no-such-clip", "neither a folder nor to be had from the hub"),
        ("vit_small", "is no file, nor weights that timm knows"),
        ("timm/vit_small_patch16_224.dino", "neither a file nor to be had from the hub"),
    ],
)
def test_an_encoder_that_cannot_be_had_is_one_sentence(name, sentence, cache, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=sentence):
        _vision.encoder(name, 1)


def test_another_model_is_no_encoder(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match="is of type bert: give a CLIP model, or a timm ViT"):
        _vision.encoder(str(tmp_path), 1)


# Cells


def test_a_method_that_cannot_be_shown_pictures_reads_the_text_and_says_so(cache, tmp_path):
    def cell(method: str, **settings):
        choice = Choice("scienceqa", "llama", method, dataset="image", device="cpu", limit=3)
        return run(single(choice, SMALL | {"max_new_tokens": 2} | settings), Store(tmp_path / "store"))

    blind = cell("lora")
    note = "lora was shown no pictures: it read the text alone"
    assert note in blind.result["notes"]
    assert not (cache / "features").exists()
    sighted = cell("zero_init")
    assert not [note for note in sighted.result["notes"] if "shown no" in note]
    assert sighted.result["facts"]["fingerprint"] != blind.result["facts"]["fingerprint"]
    covered = cell("zero_init", pictures=False)
    assert covered.result["facts"]["blind"]
    assert covered.result["facts"]["fingerprint"] == blind.result["facts"]["fingerprint"]
    assert cell("oracle").result["facts"]["fingerprint"] == sighted.result["facts"]["fingerprint"]
    assert (blind.result["facts"]["step0_distance"], sighted.result["facts"]["step0_distance"]) == (0.0, 0.0)


def test_a_cell_is_the_same_whether_its_features_were_known(cache, tmp_path):
    """What looks at pictures draws random weights when it is made; the prompts are to be drawn as if it did not."""
    config = single(Choice("scienceqa", "llama", "zero_init", dataset="image", device="cpu", limit=3), SMALL)
    assert not (cache / "features").exists()
    first, second = (run(config, Store(tmp_path / name)) for name in ("computed", "known"))
    files = [tmp_path / name / "cells" / config.cell / "adapter" / TENSORS for name in ("computed", "known")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert first.records == second.records
