"""What cannot be is refused in one sentence; and what lives beside another adapter of its kind lives on without it."""

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from transformers import MixtralConfig, MixtralForCausalLM

import zeroinit
from tests.zeroinit.opened import llama, roberta
from zeroinit import attention, condition, methods
from zeroinit.seams import UnsupportedHostError

ADAPTER, FULL, IA3, LORA, PROMPT = (methods.get(name) for name in ("adapter", "full", "ia3", "lora", "prompt"))
CONDITIONED = zeroinit.ZeroInit(length=3, layers=2, condition=zeroinit.ImageCondition(depths=1, width=4))
IDS = torch.tensor([[5, 6, 7], [8, 9, 10]])


def planted(*adapters: methods.Method, host=llama) -> torch.nn.Module:
    torch.manual_seed(0)
    model = host().eval()
    for number, adapter in enumerate(adapters):
        zeroinit.attach(model, adapter, f"a{number}")
    return model


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"bottleneck": 0}, "bottleneck is a hidden size"),
        ({"places": ()}, "places are"),
        ({"places": ("x",)}, "places"),
    ],
)
def test_bottlenecks_of_nothing_are_refused(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        ADAPTER(**fields)


def test_a_gate_of_another_kind_is_refused():
    with pytest.raises(ValueError, match='gate is "tanh", "identity" or "none", not \'TANH\''):
        attention.open_gate(torch.zeros(1), "TANH")


def test_a_layers_parameters_are_of_its_dtype_and_place():
    for dtype in (torch.float64, torch.bfloat16):
        prompt = zeroinit.GatedPrompt(2, 8, 4, dtype=dtype)
        assert {p.dtype for p in prompt.parameters()} == {dtype}
        assert {p.dtype for p in zeroinit.GatedPrompt(2, 8, 4).parameters()} == {torch.float32}
    empty = zeroinit.GatedPrompt(2, 8, 4, device=torch.device("meta"))
    assert {p.device.type for p in empty.parameters()} == {"meta"}
    usual = zeroinit.GatedPrompt(1000, 64, 4)
    assert usual.prompt.std().item() == pytest.approx(1, rel=0.02)
    torch.nn.init.constant_(usual.gate, 0.5)
    assert torch.equal(usual.opening(), torch.full((4, 1, 1), 0.5).tanh())
    open_ = zeroinit.GatedPrompt(2, 8, 4, activation="none")
    assert open_.gate is None
    assert torch.equal(open_.opening(), torch.ones(1, 1, 1))
    assert repr(open_) == "GatedPrompt(length=2, width=8, gate=none)"


def test_probabilities_are_summed_up_in_float32():
    # Of so many equal prompts a sum in bfloat16 would stop at 256.
    query, key, value = torch.zeros(1, 1, 1, 4), torch.zeros(1, 1, 4096, 4), torch.ones(1, 1, 4096, 4)
    term = zeroinit.gated_prompt_attention(*(x.bfloat16() for x in (query, key, value)), torch.ones(1), 1.0)
    torch.testing.assert_close(term.float(), torch.full((1, 1, 1, 4), 0.7616), atol=4e-3, rtol=0)


def test_a_file_of_another_kind_defines_no_method(tmp_path):
    path = tmp_path / "method.txt"
    path.write_text("")
    with pytest.raises(ValueError, match=r"method\.txt is no Python file"):
        methods.from_file(path)


def test_maps_that_are_nowhere_are_refused():
    with pytest.raises(ValueError, match="no attention of LlamaForCausalLM has a map called nothing"):
        planted(LORA(targets=("nothing",)))


def test_two_tuners_of_peft_are_refused():
    with pytest.raises(ValueError, match="PEFT's lora is attached, and a host bears one of its methods"):
        planted(LORA(), IA3())


def test_what_could_not_be_planted_leaves_those_before_it():
    model = planted(LORA())
    before = model(IDS).logits
    with pytest.raises(ValueError, match="99"):
        zeroinit.attach(model, LORA(layers=99), "b")
    assert list(zeroinit.trainable(model)) == list(zeroinit.trainable(planted(LORA())))
    zeroinit.activate(model, "a0")
    assert torch.equal(model(IDS).logits, before)
    with pytest.raises(ValueError, match="no adapter 'b' is attached; there are a0"):
        zeroinit.activate(model, "b")


def test_one_of_several_active_adapters_must_be_named():
    model = planted(zeroinit.ZeroInit(length=2), zeroinit.ZeroInit(length=2))
    zeroinit.activate(model, ["a0", "a1"])
    with pytest.raises(ValueError, match="2 adapters are active: name the one that is meant"):
        zeroinit.gates(model)


def test_a_condition_that_does_not_fit_is_refused_where_an_adapter_is_activated():
    model = planted(zeroinit.ZeroInit(length=2), CONDITIONED)
    with zeroinit.conditioned(model, torch.zeros(2, 1, 4)), pytest.raises(ValueError, match="'a0' takes no condition"):
        zeroinit.activate(model, "a0")


def test_rows_that_no_condition_belongs_to_are_refused():
    with pytest.raises(ValueError, match="a batch of 3 rows is no multiple of the 2 conditioned rows"):
        condition.Condition(torch.zeros(2, 1, 4), None).select([0], 3)


def test_experts_have_no_one_end():
    size = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = MixtralForCausalLM(MixtralConfig(**size, num_key_value_heads=2, num_local_experts=2, vocab_size=50))
    with pytest.raises(UnsupportedHostError, match="does not end in one attention map and one feed-forward map"):
        zeroinit.attach(model, ADAPTER())


def test_a_model_of_two_classifiers_is_refused():
    model = timm.create_model("deit_tiny_distilled_patch16_224", depth=1)
    with pytest.raises(UnsupportedHostError, match="has 2 classifiers, one is supported"):
        zeroinit.attach(model, zeroinit.ZeroInit(length=2))


def test_more_layers_than_the_model_has_are_refused(tmp_path: Path):
    told = {"peft_type": "ADAPTION_PROMPT", "adapter_layers": 9, "adapter_len": 2, "task_type": "CAUSAL_LM"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(told))
    save_file(
        {"base_model.model.model.layers.0.self_attn.adaption_prompt": torch.zeros(1, 2, 64)},
        tmp_path / "adapter_model.safetensors",
    )
    with pytest.raises(ValueError, match="adapts 9 layers, the model has"):
        zeroinit.load(llama(), tmp_path)


def test_masks_made_by_hand_are_refused_by_prompt_tuning():
    model = planted(PROMPT(length=2))
    with pytest.raises(ValueError, match=r"prompt tuning takes masks of \(batch, tokens\)"):
        model(IDS, attention_mask=torch.zeros(2, 1, 3, 3))


@pytest.mark.parametrize("host", [llama, roberta])
def test_prompt_tuning_answers_in_tuples_too(host):
    model = planted(PROMPT(length=2), host=host)
    named, plain = model(IDS), model(IDS, return_dict=False)
    assert torch.equal(plain[0], named[0])


@pytest.mark.parametrize("method", [ADAPTER(bottleneck=4), FULL(), LORA(rank=2), PROMPT(length=2)], ids=methods.name_of)
def test_one_of_two_is_saved_and_detached_while_the_other_acts(method, tmp_path):
    model = planted(method, method)
    torch.manual_seed(1)
    zeroinit.activate(model, "a0")
    with torch.no_grad():
        for parameter in zeroinit.trainable(model).values():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    first = model(IDS).logits
    zeroinit.activate(model, "a1")
    second = model(IDS).logits
    assert not torch.equal(first, second)
    zeroinit.save(model, tmp_path, "a0")
    zeroinit.detach(model, "a0")
    assert torch.equal(model(IDS).logits, second)
    torch.testing.assert_close(zeroinit.load(planted(), tmp_path)(IDS).logits, first)
