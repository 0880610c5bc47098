"""save and load: the same outputs again, and one clear error for everything that does not fit."""

import json
import os
import pickle
from pathlib import Path

import peft
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import zeroinit
from tests.zeroinit.opened import (
    HOSTS,
    batch_for,
    gpt2,
    llama,
    llama_classifier,
    logits,
    mistral,
    open_gates,
    opened,
    roberta,
    vit,
)
from tests.zeroinit.test_attach import IMPOSSIBLE, METHODS, assert_same, snapshot
from zeroinit.checkpoint import CheckpointError

ALL = {**HOSTS, "llama_classifier": llama_classifier}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("host", ALL)
def test_a_saved_adapter_gives_the_same_outputs(tmp_path, host, method):
    if (host, method) in IMPOSSIBLE:
        pytest.skip(IMPOSSIBLE[host, method])
    torch.manual_seed(0)
    model = ALL[host]().eval()
    fresh = ALL[host]().eval()
    fresh.load_state_dict(model.state_dict())
    inputs = batch_for(model)
    zeroinit.attach(model, METHODS[method], "mine")
    with torch.no_grad():
        for parameter in zeroinit.trainable(model).values():
            parameter += 0.2 * torch.randn_like(parameter)
    adapted = logits(model, inputs)
    zeroinit.save(model, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    zeroinit.load(fresh, tmp_path, "theirs")
    assert torch.equal(logits(fresh, inputs), adapted)
    assert zeroinit.trainable(fresh)
    held = load_file(tmp_path / "adapter_model.safetensors")
    assert sum(t.numel() for t in held.values()) == sum(p.numel() for p in zeroinit.trainable(model).values())


@pytest.mark.parametrize("method", ["head", "full"])
def test_a_host_whose_attention_is_out_of_reach_can_be_probed(tmp_path, method):
    model, fresh = (timm.create_model("resnet10t", num_classes=3).eval() for _ in range(2))
    fresh.load_state_dict(model.state_dict())
    inputs = torch.randn(2, 3, 32, 32)
    zeroinit.attach(model, METHODS[method])
    with torch.no_grad():
        for parameter in zeroinit.trainable(model).values():
            parameter += 0.1
    zeroinit.save(model, tmp_path)
    assert torch.equal(zeroinit.load(fresh, tmp_path)(inputs), model(inputs))


def test_an_inactive_adapter_is_saved_with_its_own_head(tmp_path):
    model = opened(roberta, names=("a", "b"))
    inputs = batch_for(model)
    zeroinit.activate(model, "a")
    adapted = logits(model, inputs)
    zeroinit.activate(model, "b")
    zeroinit.save(model, tmp_path, "a")
    zeroinit.detach(model)
    assert torch.equal(logits(zeroinit.load(model, tmp_path), inputs), adapted)


def _edit(folder: Path, **changes: object) -> None:
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, **changes}))


def _drop(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    save_file(dict(list(load_file(file).items())[1:]), file)


def _add(folder: Path, dtype: torch.dtype = torch.float32) -> None:
    file = folder / "adapter_model.safetensors"
    save_file({**load_file(file), "layers.9.prompt": torch.zeros(2, dtype=dtype)}, file)


def _reshape(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    save_file({k: v[:-1] if k.endswith("prompt") else v for k, v in load_file(file).items()}, file)


def _poison(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    save_file({k: v * float("nan") for k, v in load_file(file).items()}, file)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: (f / "adapter_config.json").unlink(), "adapter_config.json cannot be read"),
        (lambda f: (f / "adapter_model.safetensors").unlink(), "safetensors"),
        (lambda f: (f / "adapter_config.json").write_text("{"), "no valid JSON"),
        (lambda f: (f / "adapter_config.json").write_text("[" * 100_000), "no valid JSON"),
        (lambda f: (f / "adapter_config.json").write_text("[1]"), "list where an object"),
        (lambda f: (f / "adapter_model.safetensors").write_bytes(b"\x80\x04junk"), "cannot be read as safetensors"),
        (lambda f: _edit(f, method="../lora"), "no method"),
        (lambda f: _edit(f, fields={"width": 3}), "no field width"),
        (lambda f: _edit(f, fields={"length": "long"}), "adapter_config.json"),
        (lambda f: _edit(f, library="other"), "no zeroinit adapter"),
        (lambda f: _edit(f, method="lora", fields={"targets": [{"a": 1}]}), "adapter_config.json"),
        (_drop, "is missing"),
        (_add, "layers.9.prompt is unexpected"),
        (lambda f: _add(f, torch.float8_e4m3fn), "layers.9.prompt is unexpected"),  # which torch cannot ask for NaN
        (_reshape, r"is \(2, 32\), the model needs \(3, 32\)"),
        (_poison, "is not finite"),
    ],
)
def test_a_broken_folder_is_one_clear_error_and_the_model_is_left_alone(tmp_path, harm, message):
    zeroinit.save(opened(llama), tmp_path)
    harm(tmp_path)
    model = llama()
    before = snapshot(model)
    with pytest.raises(CheckpointError, match=message):
        zeroinit.load(model, tmp_path)
    assert_same(before, snapshot(model))


def test_another_host_is_refused_with_both_numbers(tmp_path):
    zeroinit.save(opened(llama), tmp_path)
    config = llama().config
    deeper = type(llama())(type(config)(**{**config.to_dict(), "num_hidden_layers": 5}))
    with pytest.raises(CheckpointError, match=r"layers 3, this model has layers 5"):
        zeroinit.load(deeper, tmp_path)
    with pytest.raises(CheckpointError, match=r"type llama, this model has type mistral"):
        zeroinit.load(mistral(), tmp_path)
    with pytest.raises(CheckpointError, match=r"type llama, this model has type timm VisionTransformer"):
        zeroinit.load(vit(), tmp_path)


KEYS = st.sampled_from(["method", "fields", "host", "library", "format", "peft_type", "length"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda part: st.lists(part) | st.dictionaries(KEYS, part)
)


@settings(max_examples=60, deadline=None)
@given(config=JSON)
def test_no_config_ends_in_another_error(tmp_path_factory, config):
    folder = tmp_path_factory.mktemp("fuzz")
    save_file({"layers.0.prompt": torch.zeros(2, 2)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError):
        zeroinit.load(llama(), folder)


def official(width=32, heads=4, layers=3, adapted=2, length=5) -> dict[str, torch.Tensor]:
    gates = {f"layers.{i}.attention.gate": torch.zeros(1, heads, 1, 1) for i in range(layers)}
    for i in range(layers - adapted, layers):
        gates[f"layers.{i}.attention.gate"] += 0.3 + i
    return {"adapter_query.weight": torch.randn(adapted * length, width), **gates}


def test_the_authors_layout_tells_its_size(tmp_path):
    torch.save(official(), tmp_path / "a.pth")
    model = zeroinit.load_official(llama(), tmp_path / "a.pth")
    assert len([n for n in zeroinit.trainable(model) if n.endswith("prompt")]) == 2
    assert model.model.layers[2].self_attn.zeroinit.default.prompt.shape == (5, 32)


def test_legacy_scalar_gates_are_accepted(tmp_path):
    state = {k: v.flatten()[:1] if "gate" in k else v for k, v in official().items()}
    torch.save(state, tmp_path / "a.pth")
    model = zeroinit.load_official(llama(), tmp_path / "a.pth", gate="identity")
    assert model.model.layers[1].self_attn.zeroinit.default.gate.flatten().tolist() == pytest.approx([1.3])


@pytest.mark.parametrize(
    ("state", "options", "message"),
    [
        (official(width=64), {}, "width 64, the model's width is 32"),
        (official(heads=8), {}, r"\[8\] heads, the model has 4 heads"),
        (official(layers=4), {}, "4 layers, the model has 3 layers"),
        (official(adapted=2, length=5) | {"adapter_query.weight": torch.randn(9, 32)}, {}, "9 prompt rows"),
        ({k: v * 0 for k, v in official().items()}, {}, "only zero gates.*give length"),
        (official(), dict(length=3), "10 prompt rows"),
        (official(), dict(length=0), "prompt rows"),
        (official(), dict(layers=4), "prompt rows"),
        (official(), dict(length=2), "adapts 5 layers, the model has 3"),
        ({"a": torch.zeros(1)}, {}, "no adapter_query.weight"),
        ({"adapter_query.weight": torch.zeros(4, 32)}, {}, "gates for layers"),
        ([1, 2], {}, "no adapter_query.weight"),
    ],
)
def test_an_unfit_official_file_is_one_clear_error(tmp_path, state, options, message):
    torch.save(state, tmp_path / "a.pth")
    model = llama()
    before = snapshot(model)
    with pytest.raises(CheckpointError, match=message):
        zeroinit.load_official(model, tmp_path / "a.pth", **options)
    assert_same(before, snapshot(model))


class Payload:
    def __reduce__(self):
        return os.system, ("touch payload_ran",)


def test_a_pickled_payload_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"adapter_query.weight": Payload()}, "a.pth")
    Path("b.pth").write_bytes(pickle.dumps(Payload()))
    for file in ("a.pth", "b.pth", "absent.pth"):
        with pytest.raises(CheckpointError, match=file):
            zeroinit.load_official(llama(), file)
    assert not Path("payload_ran").exists()


@pytest.mark.parametrize("host", [llama, mistral])
def test_a_peft_adapter_gives_pefts_own_outputs(tmp_path, host):
    torch.manual_seed(0)
    model, fresh = host().eval(), host().eval()
    fresh.load_state_dict(model.state_dict())
    inputs = batch_for(model)
    config = peft.AdaptionPromptConfig(adapter_len=4, adapter_layers=2, task_type="CAUSAL_LM")
    theirs = peft.get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "adaption" in name:
                parameter.normal_()
    theirs.save_pretrained(tmp_path)
    expected = theirs(inputs).logits
    ours = logits(zeroinit.load(fresh, tmp_path), inputs)
    torch.testing.assert_close(ours, expected, atol=2e-5, rtol=1e-4)
    deeper_config = fresh.config.to_dict() | {"num_hidden_layers": 6}
    deeper = type(fresh)(type(fresh.config)(**deeper_config))
    with pytest.raises(CheckpointError, match="in a model of 6 the top 2 are others"):
        zeroinit.load(deeper, tmp_path)


def test_pefts_gpt2_is_refused(tmp_path):
    config = {"peft_type": "ADAPTION_PROMPT", "adapter_len": 4, "adapter_layers": 2}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    save_file({"x": torch.zeros(1)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="GPT-2"):
        zeroinit.load(gpt2(), tmp_path)


def test_a_failed_load_leaves_the_active_adapter_acting(tmp_path):
    model, other = opened(llama), opened(llama, names=("z",))
    expected = logits(model, batch_for(model))
    with torch.no_grad():
        next(iter(zeroinit.trainable(other).values())).fill_(float("nan"))
    zeroinit.save(other, tmp_path)
    with pytest.raises(CheckpointError, match="is not finite"):
        zeroinit.load(model, tmp_path, "b")
    assert torch.equal(logits(model, batch_for(model)), expected)
    assert len(zeroinit.trainable(model)) == 4


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda t: t.double() * 1e60, "is not finite"),
        (lambda t: t.long(), "torch.int64, not floating"),
    ],
)
def test_what_no_adapter_holds_is_refused(tmp_path, harm, message):
    zeroinit.save(opened(llama), tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    save_file({key: harm(value) for key, value in load_file(file).items()}, file)
    with pytest.raises(CheckpointError, match=message):
        zeroinit.load(llama(), tmp_path)


@pytest.mark.parametrize(
    "fields",
    [
        {"length": 10**12},
        {"length": 2.5},
        {"length": True},
        {"layers": 1.0},
        {"layers": 99},
        {"init_std": -1},
        {"gate_init": "x"},
        {"dtype": "float8_e4m3fn"},
        {"condition": "x"},
        {"condition": {"depths": -1, "width": 2}},
        {"condition": {"depths": 1.5, "width": 2}},
    ],
)
def test_no_field_asks_for_more_than_the_file_holds(tmp_path, fields):
    zeroinit.save(opened(llama), tmp_path)
    file = tmp_path / "adapter_config.json"
    config = json.loads(file.read_text())
    config["fields"] |= fields
    file.write_text(json.dumps(config))
    model = llama()
    before = snapshot(model)
    with pytest.raises(CheckpointError):
        zeroinit.load(model, tmp_path)
    assert_same(before, snapshot(model))


def test_loading_clears_what_was_cached(tmp_path):
    model = opened(llama)
    inputs = batch_for(model)
    with torch.no_grad():
        first = logits(model, inputs)
        zeroinit.save(model, tmp_path)
        open_gates(model)
        assert not torch.equal(logits(model, inputs), first)
        zeroinit.detach(model)
        assert torch.equal(logits(zeroinit.load(model, tmp_path).eval(), inputs), first)
