"""attach, activate, disabled, detach: the host before, between and after."""

import copy

import pytest
import timm
import torch
import transformers
from torch import nn

import zeroinit
from tests.zeroinit.opened import (
    HOSTS,
    batch_for,
    gpt2,
    llama,
    llama_classifier,
    logits,
    open_gates,
    opened,
    roberta,
    vit,
)
from zeroinit.attach import host_of
from zeroinit.methods.adapter import BottleneckAdapter
from zeroinit.methods.bitfit import Bitfit
from zeroinit.methods.full import Full
from zeroinit.methods.head import Head
from zeroinit.methods.ia3 import Ia3
from zeroinit.methods.lora import Lora
from zeroinit.methods.prefix import PrefixTuning
from zeroinit.methods.prompt import PromptTuning
from zeroinit.methods.rand_init import RandInit
from zeroinit.methods.vpt import Vpt
from zeroinit.prompts import LayerPrompts

ALL = {**HOSTS, "gpt2": gpt2, "llama_classifier": llama_classifier}
METHODS = {
    "zero_init": zeroinit.ZeroInit(length=3, layers=2),
    "rand_init": RandInit(length=3, layers=2),
    "prefix": PrefixTuning(length=3, layers=2),
    "adapter": BottleneckAdapter(bottleneck=4),
    "vpt": Vpt(length=3),
    "prompt": PromptTuning(length=3),
    "lora": Lora(rank=2),
    "ia3": Ia3(),
    "bitfit": Bitfit(),
    "full": Full(),
    "head": Head(),
}
STARTS_OPEN = ("rand_init", "prefix", "prompt", "vpt")
IMPOSSIBLE = {
    ("llama", "head"): "no task head",
    ("gpt2", "head"): "no task head",
    ("llama", "bitfit"): "no bias to train",
    ("llama_classifier", "bitfit"): "no bias to train",
    **{(host, "vpt"): "plain ViT of timm" for host in ("llama", "roberta", "gpt2", "llama_classifier")},
}


def snapshot(model: nn.Module) -> dict[str, object]:
    """All that detach must give back."""
    config = getattr(model, "config", None)
    return {
        "state": {key: value.clone() for key, value in model.state_dict().items()},
        "grad": {key: p.requires_grad for key, p in model.named_parameters()},
        "type": type(model),
        "attention": getattr(config, "_attn_implementation", None),
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()],
        "modules": [(name, type(module)) for name, module in model.named_modules()],
        "attributes": [sorted(vars(module)) for module in model.modules()],
    }


def assert_same(before: dict[str, object], after: dict[str, object]) -> None:
    assert before["state"].keys() == after["state"].keys()
    assert all(torch.equal(before["state"][key], after["state"][key]) for key in before["state"])
    for key in before.keys() - {"state"}:
        assert before[key] == after[key], key


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("host", ALL)
def test_detach_gives_back_the_host(host, method):
    torch.manual_seed(0)
    model = ALL[host]()
    inputs = batch_for(model)
    if (host, method) in IMPOSSIBLE:
        with pytest.raises(ValueError, match=IMPOSSIBLE[host, method]):
            zeroinit.attach(model, METHODS[method])
        return
    some = [p for p in model.parameters() if p.dim() == 1][:3]
    for parameter in some:
        parameter.requires_grad_(False)
    before, output = snapshot(model), logits(model, inputs)
    zeroinit.attach(model, METHODS[method])
    assert torch.equal(logits(model, inputs), output) or method in STARTS_OPEN
    planted = zeroinit.trainable(model)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == set(planted)
    with torch.no_grad():
        for parameter in planted.values():
            parameter += 0.2 * torch.randn_like(parameter)
    assert not torch.equal(logits(model, inputs), output)
    with zeroinit.disabled(model):
        assert torch.equal(logits(model, inputs), output)
    host_state = zeroinit.host_state_dict(model)
    assert_same({**before, "state": host_state}, before)
    ALL[host]().load_state_dict(host_state, strict=True)
    zeroinit.detach(model)
    assert_same(before, snapshot(model))
    assert torch.equal(logits(model, inputs), output)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_attention_implementation_comes_back(attention):
    model = llama(attention)
    zeroinit.attach(model, zeroinit.ZeroInit())
    zeroinit.detach(model)
    assert model.config._attn_implementation == attention


def test_weights_of_attention_are_asked_for_in_the_call():
    """transformers lets a config ask for them where attention is named eager, and forgets it at every save."""
    model = llama("eager").eval()
    model.config.output_attentions = True
    with pytest.raises(zeroinit.UnsupportedHostError, match="pass output_attentions=True to the forward pass"):
        zeroinit.attach(model, zeroinit.ZeroInit(length=3))
    model.config.output_attentions = False
    expected = model(batch_for(model), output_attentions=True).attentions
    zeroinit.attach(model, zeroinit.ZeroInit(length=3))
    found = model(batch_for(model), output_attentions=True).attentions
    assert len(expected) == len(found) == 3
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_what_trains_is_named_prompt_gate_or_head():
    model = opened(roberta)
    names = zeroinit.trainable(model)
    rest = {name for name in names if not name.endswith((".prompt", ".gate"))}
    assert rest == {name for name, _ in model.named_parameters() if name.startswith("classifier.")}
    assert not {name for name in zeroinit.trainable(opened(llama)) if not name.endswith((".prompt", ".gate"))}


@pytest.mark.parametrize(
    ("length", "layers", "per_head", "gate"),
    [(10, None, True, "tanh"), (3, 2, False, "identity"), (4, 1, True, "none")],
)
def test_the_count_of_parameters_is_the_formula(length, layers, per_head, gate):
    model = zeroinit.attach(llama(), zeroinit.ZeroInit(length, layers, gate, per_head, train_head=False))
    gates = 0 if gate == "none" else (4 if per_head else 1)
    assert sum(p.numel() for p in zeroinit.trainable(model).values()) == (layers or 3) * (length * 32 + gates)


def test_llama_7b_trains_the_published_number():
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig())
        zeroinit.attach(model, zeroinit.ZeroInit(length=10, layers=30))
    assert sum(p.numel() for p in zeroinit.trainable(model).values()) == 1_229_760


@pytest.mark.parametrize("host", HOSTS)
def test_several_adapters_switch_with_their_heads(host):
    model = HOSTS[host]().eval()
    inputs = batch_for(model)
    base = logits(model, inputs)
    outputs = {}
    for seed, name in enumerate(("a", "b", "c")):
        torch.manual_seed(seed)
        zeroinit.attach(model, zeroinit.ZeroInit(length=2 + seed, layers=1 + seed), name)
        open_gates(model)
        outputs[name] = logits(model, inputs)
    for name in ("b", "a", "c", "a"):
        zeroinit.activate(model, name)
        assert torch.equal(logits(model, inputs), outputs[name])
        own = [n for n in zeroinit.trainable(model) if "zeroinit" in n]
        assert own
        assert all(f".zeroinit.{name}." in n for n in own)
    zeroinit.detach(model, "b")
    assert torch.equal(logits(model, inputs), outputs["a"])
    zeroinit.activate(model, "c")
    assert torch.equal(logits(model, inputs), outputs["c"])
    zeroinit.detach(model)
    assert torch.equal(logits(model, inputs), base)


def test_methods_share_a_host():
    model = roberta().eval()
    inputs = batch_for(model)
    base, outputs = logits(model, inputs), {}
    for name, method in METHODS.items():
        if ("roberta", name) in IMPOSSIBLE or name == "ia3":  # a host bears one of PEFT's methods
            continue
        zeroinit.attach(model, method, name)
        with torch.no_grad():
            for parameter in zeroinit.trainable(model).values():
                parameter += 0.3 * torch.randn_like(parameter)
        outputs[name] = logits(model, inputs)
    for name in ("lora", "zero_init", "full", "bitfit", "adapter", "prefix", "prompt", "head", "rand_init", "lora"):
        zeroinit.activate(model, name)
        torch.testing.assert_close(logits(model, inputs), outputs[name])
        with zeroinit.disabled(model):
            assert torch.equal(logits(model, inputs), base)
    for name in outputs:
        zeroinit.detach(model, name)
    assert torch.equal(logits(model, inputs), base)


def test_an_inactive_adapter_moves_with_the_model():
    model = opened(vit, names=("a", "b"))
    model.to(torch.float64)
    zeroinit.activate(model, "a")
    assert {p.dtype for p in zeroinit.trainable(model).values()} == {torch.float64}
    assert {p.dtype for p in zeroinit.host_state_dict(model).values()} == {torch.float64}


def test_two_models_of_one_config_do_not_harm_each_other():
    config = llama().config
    first, second = transformers.LlamaForCausalLM(config).eval(), transformers.LlamaForCausalLM(config).eval()
    inputs = batch_for(first)
    plain = logits(second, inputs)
    zeroinit.attach(first, zeroinit.ZeroInit())
    open_gates(first)
    assert torch.equal(logits(second, inputs), plain)
    zeroinit.attach(second, zeroinit.ZeroInit())
    open_gates(second)
    adapted = logits(second, inputs)
    zeroinit.detach(first)
    assert torch.equal(logits(second, inputs), adapted)
    zeroinit.detach(second)
    assert torch.equal(logits(second, inputs), plain)


def test_a_copy_lives_on_its_own():
    model = opened(vit)
    inputs = batch_for(model)
    adapted = logits(model, inputs)
    twin = copy.deepcopy(model)
    zeroinit.detach(twin)
    assert torch.equal(logits(model, inputs), adapted)
    assert not torch.equal(logits(twin, inputs), adapted)


def test_a_copy_made_where_adapters_are_off_is_not_off_for_ever():
    model = opened(vit)
    inputs = batch_for(model)
    adapted = logits(model, inputs)
    with zeroinit.disabled(model):
        twin = copy.deepcopy(model)
    zeroinit.activate(twin, "default")
    with zeroinit.disabled(twin):
        assert not torch.equal(logits(twin, inputs), adapted)
    assert torch.equal(logits(twin, inputs), adapted)


class Wrapper(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = llama()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Wrapper, r"attach to the model inside, at \.backbone"),
        (lambda: nn.Linear(2, 2), "not a model of timm or transformers"),
        (lambda: timm.create_model("resnet18"), "supported are timm models"),
        (lambda: timm.create_model("beit_base_patch16_224", depth=1), "supported are timm models"),
        (
            lambda: transformers.T5ForConditionalGeneration(
                transformers.T5Config(d_model=16, d_ff=16, d_kv=4, num_heads=4, num_layers=1, vocab_size=20)
            ),
            r"several towers.*\.encoder, \.decoder",
        ),
        (
            lambda: transformers.CLIPModel(
                transformers.CLIPConfig(
                    text_config=dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2),
                    vision_config=dict(
                        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
                    ),
                )
            ),
            r"several towers.*\.text_model, \.vision_model",
        ),
        (
            lambda: transformers.BloomForCausalLM(
                transformers.BloomConfig(hidden_size=16, n_layer=1, n_head=2, vocab_size=20)
            ),
            "no self-attention that calls AttentionInterface",
        ),
    ],
)
def test_what_is_not_supported_is_refused_and_left_alone(make, message):
    model = make()
    before = snapshot(model)
    with pytest.raises(zeroinit.UnsupportedHostError, match=message):
        zeroinit.attach(model, zeroinit.ZeroInit())
    assert_same(before, snapshot(model))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(layers=0), "at least 1"),
        (dict(layers=-1), "at least 1"),
        (dict(layers=4), "layers=4, but LlamaForCausalLM has 3"),
        (dict(length=0), "at least 1"),
        (dict(gate="sigmoid"), "sigmoid"),
        (dict(dtype="int8"), "int8"),
        (dict(dtype="nonsense"), "nonsense"),
    ],
)
def test_impossible_fields_are_refused_and_the_model_is_left_alone(fields, message):
    model = llama()
    before = snapshot(model)
    with pytest.raises(ValueError, match=message):
        zeroinit.attach(model, zeroinit.ZeroInit(**fields))
    assert_same(before, snapshot(model))


@pytest.mark.parametrize("name", ["", "a.b", "keys", "forward", "train", "a b", "term", "cache"])
def test_unfit_names_are_refused(name):
    with pytest.raises(ValueError, match="adapter's name"):
        zeroinit.attach(llama(), zeroinit.ZeroInit(), name)


def test_unknown_and_taken_names_are_refused():
    model = opened(llama)
    with pytest.raises(ValueError, match="attached already"):
        zeroinit.attach(model, zeroinit.ZeroInit())
    for act in (zeroinit.activate, zeroinit.detach, lambda m, n: zeroinit.save(m, "/nowhere", n)):
        with pytest.raises(ValueError, match=r"no adapter 'x' is attached; there are default"):
            act(model, "x")
    with pytest.raises(ValueError, match="attach one first"):
        zeroinit.trainable(llama())


def test_a_failed_attach_leaves_the_other_adapter_as_it_was():
    model = opened(llama)
    inputs = batch_for(model)
    adapted = logits(model, inputs)
    with pytest.raises(ValueError, match="layers=9"):
        zeroinit.attach(model, zeroinit.ZeroInit(layers=9), "other")
    assert torch.equal(logits(model, inputs), adapted)
    assert zeroinit.trainable(model)


@pytest.mark.parametrize("host", [llama_classifier, vit])
def test_a_head_replaced_after_attach_is_the_adapters(tmp_path, host):
    """`reset_classifier` and `model.score = …` are how users change their classes, at any time."""
    torch.manual_seed(0)
    model = host().eval()
    place = "score" if host is llama_classifier else "head"
    old, new = model.get_submodule(place), nn.Linear(32, 7)
    zeroinit.attach(model, zeroinit.ZeroInit(length=3))
    setattr(model, place, new)
    open_gates(model)
    assert {id(p) for p in new.parameters()} <= {id(p) for p in zeroinit.trainable(model).values()}
    inputs, found = batch_for(model), logits(model, batch_for(model))
    zeroinit.save(model, tmp_path)
    with zeroinit.disabled(model):
        assert logits(model, inputs).shape[-1] == 3
    assert torch.equal(logits(model, inputs), found)
    zeroinit.detach(model)
    assert model.get_submodule(place) is old
    with pytest.raises(ValueError, match="head"):
        zeroinit.load(model, tmp_path)


def test_a_head_that_could_be_anyones_is_refused():
    model = opened(vit, names=("a", "b"))
    zeroinit.activate(model, ["a", "b"])
    with zeroinit.disabled(model):
        model.head = nn.Linear(32, 3)
        with pytest.raises(ValueError, match="was replaced after `attach`"):
            zeroinit.trainable(model)
        model.head = model.zeroinit.heads[None].module


def test_a_model_without_classes_may_get_some(tmp_path):
    torch.manual_seed(0)
    model = vit(labels=0).eval()
    before = snapshot(model)["state"]
    zeroinit.attach(model, zeroinit.ZeroInit(length=3))
    model.reset_classifier(4)
    open_gates(model)
    assert "head.weight" in zeroinit.trainable(model)
    found = logits(model, batch_for(model))
    zeroinit.save(model, tmp_path)
    zeroinit.detach(model)
    assert model.state_dict().keys() == before.keys()
    again = vit(labels=4).eval()
    again.load_state_dict(before, strict=False)
    assert torch.equal(logits(zeroinit.load(again, tmp_path), batch_for(model)), found)


def test_an_adapted_part_is_not_adapted_again():
    model = llama().eval()
    zeroinit.attach(model.model, zeroinit.ZeroInit(length=3))
    open_gates(model.model)
    expected = logits(model, batch_for(model))
    with pytest.raises(ValueError, match=r"\.model has adapters of its own"):
        zeroinit.attach(model, zeroinit.ZeroInit(length=3))
    assert torch.equal(logits(model, batch_for(model)), expected)
    with pytest.raises(ValueError, match=r"it is inside, give \.model"):
        zeroinit.trainable(model)


def test_rows_keep_their_adapters_when_one_is_detached():
    model = opened(llama, names=("a", "b", "c"))
    zeroinit.activate(model, ["a", "b", "c"])
    inputs = batch_for(model, rows=3)
    expected = logits(model, inputs)
    zeroinit.detach(model, "a")
    assert torch.equal(logits(model, inputs)[1:], expected[1:])
    assert not torch.equal(logits(model, inputs)[0], expected[0])


def test_detaching_while_disabled_is_no_trap():
    model = opened(llama, names=("a", "b"))
    with zeroinit.disabled(model):
        zeroinit.detach(model, "b")
    with zeroinit.disabled(model):
        zeroinit.detach(model)
    assert torch.equal(logits(model, batch_for(model)), logits(opened(llama, names=()), batch_for(model)))


def test_names_that_are_numbers_or_parts_are_names():
    model = llama()
    for name in ("0", "1", "self_attn"):
        zeroinit.attach(model, Lora(rank=2), name)
    for name in ("0", "1", "self_attn"):
        zeroinit.activate(model, name)
        assert {key.split(".")[-2] for key in zeroinit.trainable(model)} == {name}
        assert all("self_attn" in key and ".layers." in key for key in host_of(model).planted(name))


@pytest.mark.parametrize("first", ["full", "lora"])
def test_full_and_lora_share_a_host_in_any_order(first):
    model = roberta().eval()
    base, outputs = logits(model, batch_for(model)), {}
    for name in (first, "lora" if first == "full" else "full"):
        zeroinit.attach(model, METHODS[name], name)
        with torch.no_grad():
            for parameter in zeroinit.trainable(model).values():
                parameter += 0.3 * torch.randn_like(parameter)
        outputs[name] = logits(model, batch_for(model))
    for name in ("lora", "full", "lora"):
        zeroinit.activate(model, name)
        torch.testing.assert_close(logits(model, batch_for(model)), outputs[name])
    zeroinit.detach(model, "lora")
    zeroinit.activate(model, "full")
    torch.testing.assert_close(logits(model, batch_for(model)), outputs["full"])
    zeroinit.detach(model)
    assert torch.equal(logits(model, batch_for(model)), base)


def test_maps_without_parameters_tell_their_device():
    """As those of quantizers, which hold buffers."""
    model = llama().eval()
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear):
                setattr(module, name, Packed(child))
    expected = logits(model, batch_for(model))
    zeroinit.attach(model, zeroinit.ZeroInit(length=3))
    assert torch.equal(logits(model, batch_for(model)), expected)
    open_gates(model)
    assert not torch.equal(logits(model, batch_for(model)), expected)


class Packed(nn.Module):
    """A linear map of whole numbers and a step."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.step = linear.weight.abs().max().item() / 127
        self.register_buffer("qweight", (linear.weight / self.step).round().to(torch.int8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ (self.qweight.to(x.dtype) * self.step).T


def test_data_parallel_is_refused():
    model = opened(llama)
    (planted, *_) = [module for module in model.modules() if isinstance(module, LayerPrompts)]
    with pytest.raises(RuntimeError, match="use DistributedDataParallel"):
        planted._replicate_for_data_parallel()


def test_parts_beside_the_head_are_told():
    config = transformers.DistilBertConfig(dim=32, hidden_dim=48, n_layers=2, n_heads=4, vocab_size=61)
    model = transformers.DistilBertForSequenceClassification(config)
    with pytest.warns(UserWarning, match="has pre_classifier beside its head classifier"):
        zeroinit.attach(model, zeroinit.ZeroInit(length=3))


def test_gates_tell_how_far_they_stand_open():
    model = opened(llama, names=("a", "b"))
    found = zeroinit.gates(model, "a")
    assert list(found) == ["model.layers.1.self_attn", "model.layers.2.self_attn"]
    for path, each in found.items():
        gate = model.get_submodule(path).zeroinit.a.gate
        torch.testing.assert_close(each, gate.flatten().tanh())
    assert zeroinit.gates(zeroinit.attach(roberta(), Lora(rank=2))) == {}
    with pytest.raises(ValueError, match="no adapter 'c'"):
        zeroinit.gates(model, "c")
