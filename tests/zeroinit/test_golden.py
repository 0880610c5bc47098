"""Against numbers that nobody here computed: the authors' code, and a float64 LLaMA written apart."""

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

import zeroinit
from tests.zeroinit.reference import llama

TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def golden(shared):
    return shared / "golden" / "official_llama_adapter"


@pytest.mark.shared
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(("gate", "file"), [("tanh", "adapter.pth"), ("identity", "adapter_identity_gate.pth")])
def test_logits_of_the_authors_code(golden, gate, file, attention):
    io = load_file(golden / "io.safetensors")
    model = LlamaForCausalLM.from_pretrained(golden / "backbone", attn_implementation=attention)
    base = model(io["input_ids"]).logits
    zeroinit.load_official(model, golden / file, gate=gate)
    assert (model(io["input_ids"]).logits - io[f"logits_{gate}_gate"]).abs().max() < TOLERANCE
    with torch.no_grad():
        assert (model.eval()(io["input_ids"]).logits - io[f"logits_{gate}_gate"]).abs().max() < TOLERANCE
    assert (io[f"logits_{gate}_gate"] - io["logits_base"]).abs().max() > 0.1
    zeroinit.detach(model)
    assert torch.equal(model(io["input_ids"]).logits, base)


@pytest.mark.shared
@pytest.mark.parametrize("checkpointing", [False, True])
def test_loss_and_every_gradient_of_the_authors_code(golden, checkpointing):
    io = load_file(golden / "io.safetensors")
    model = zeroinit.load_official(LlamaForCausalLM.from_pretrained(golden / "backbone"), golden / "adapter.pth")
    model.train()
    if checkpointing:
        model.activation_checkpointing_enable()
    logits = model(io["input_ids"]).logits
    labels = io["labels_official"]
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=0)
    assert (loss - io["loss"]).abs() < TOLERANCE
    loss.backward()
    planted = zeroinit.trainable(model)
    prompts = torch.cat([p.grad for name, p in planted.items() if name.endswith(".prompt")])
    assert (prompts - io["grad.adapter_query.weight"]).abs().max() < TOLERANCE
    for layer in (1, 2, 3):
        gate = planted[f"model.layers.{layer}.self_attn.zeroinit.default.gate"].grad
        assert (gate.flatten() - io[f"grad.layers.{layer}.attention.gate"].flatten()).abs().max() < TOLERANCE
    assert all(p.grad is None for name, p in model.named_parameters() if name not in planted)


SHAPES = {
    "mha": dict(num_attention_heads=4, num_key_value_heads=4),
    "gqa": dict(num_attention_heads=4, num_key_value_heads=2),
    "mqa": dict(num_attention_heads=4, num_key_value_heads=1),
    "head_dim": dict(num_attention_heads=4, num_key_value_heads=2, head_dim=24),
    "output_bias": dict(num_attention_heads=4, num_key_value_heads=2, attention_bias=True),
}


@pytest.mark.parametrize("per_head", [True, False])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("shape", [*SHAPES, "k_norm"])
def test_equals_an_independent_float64_llama(shape, attention, per_head):
    torch.manual_seed(0)
    size = dict(vocab_size=50, hidden_size=64, intermediate_size=96, num_hidden_layers=3, max_position_embeddings=64)
    if shape == "k_norm":
        model = Qwen3ForCausalLM(Qwen3Config(**size, **SHAPES["gqa"], head_dim=24, tie_word_embeddings=False))
    else:
        model = LlamaForCausalLM(LlamaConfig(**size, **SHAPES[shape]))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.15) if parameter.dim() > 1 else parameter.uniform_(0.5, 1.5)
    model.set_attn_implementation(attention)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    zeroinit.attach(model, zeroinit.ZeroInit(length=5, layers=2, per_head=per_head))
    prompts = {}
    for layer in (1, 2):
        planted = model.model.layers[layer].self_attn.zeroinit.default
        with torch.no_grad():
            planted.gate.uniform_(-1.5, 1.5)
        prompts[layer] = planted.prompt.detach(), planted.gate.detach().double().tanh()
    ids = torch.randint(0, 50, (2, 11))
    expected = llama(state, model.config, ids, prompts)
    assert (llama(state, model.config, ids, {}) - expected).abs().max() > 1e-2
    torch.testing.assert_close(model(ids).logits.double(), expected, atol=3e-5, rtol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(ids).logits.double(), expected, atol=3e-5, rtol=1e-4)


@pytest.mark.parametrize("gate", ["tanh", "identity"])
def test_gradients_equal_those_of_an_independent_float64_llama(gate):
    torch.manual_seed(0)
    size = dict(vocab_size=50, hidden_size=64, intermediate_size=96, num_hidden_layers=3, max_position_embeddings=64)
    model = LlamaForCausalLM(LlamaConfig(**size, **SHAPES["gqa"], initializer_range=0.15))
    state = {key: value.clone() for key, value in model.state_dict().items()}
    zeroinit.attach(model, zeroinit.ZeroInit(length=5, layers=2, gate=gate)).train()
    ids, prompts, parts = torch.randint(0, 50, (2, 11)), {}, {}
    for layer in (1, 2):
        planted = model.model.layers[layer].self_attn.zeroinit.default
        with torch.no_grad():
            planted.gate.uniform_(-1.5, 1.5)
        prompt, closed = (p.detach().double().requires_grad_() for p in (planted.prompt, planted.gate))
        prompts[layer] = prompt, closed.tanh() if gate == "tanh" else closed
        parts[layer] = (prompt, planted.prompt), (closed, planted.gate)
    llama(state, model.config, ids, prompts).pow(2).mean().backward()
    model(ids).logits.pow(2).mean().backward()
    for expected, found in (pair for pairs in parts.values() for pair in pairs):
        assert expected.grad.abs().max() > 1e-4
        assert (found.grad - expected.grad).abs().max() < TOLERANCE
