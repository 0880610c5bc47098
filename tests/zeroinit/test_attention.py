"""The formula against a float64 oracle written with loops, and the parameters of one layer."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zeroinit import GatedPrompt, gated_prompt_attention


def oracle(query, key, value, gate, scale, softcap=None):
    """Every number on its own, in float64."""
    batch, heads, tokens, _ = query.shape
    groups = heads // key.shape[1]
    term = torch.zeros(batch, heads, tokens, value.shape[-1], dtype=torch.float64)
    for b in range(batch):
        for h in range(heads):
            k, v = (x[b % x.shape[0], h // groups].double() for x in (key, value))
            g = gate.flatten()[h if gate.numel() > 1 else 0].double()
            for t in range(tokens):
                scores = [float(query[b, h, t].double() @ row) * scale for row in k]
                if softcap:
                    scores = [softcap * math.tanh(score / softcap) for score in scores]
                weights = torch.tensor([math.exp(score - max(scores)) for score in scores], dtype=torch.float64)
                term[b, h, t] = math.tanh(g) * (weights / weights.sum()) @ v
    return term


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 3),
    kv_heads=st.sampled_from([1, 2, 3]),
    groups=st.integers(1, 3),
    tokens=st.integers(1, 5),
    prompt=st.integers(1, 7),
    head_dim=st.integers(1, 9),
    own_prompt=st.booleans(),
    one_gate=st.booleans(),
    softcap=st.sampled_from([None, 0.7, 30.0]),
)
def test_equals_the_oracle(batch, kv_heads, groups, tokens, prompt, head_dim, own_prompt, one_gate, softcap):
    heads = kv_heads * groups
    query = torch.randn(batch, tokens, heads, head_dim).transpose(1, 2)
    rows = batch if own_prompt else 1
    key, value = torch.randn(rows, kv_heads, prompt, head_dim), torch.randn(rows, kv_heads, prompt, head_dim + 1)
    gate = torch.randn(1 if one_gate else heads)
    term = gated_prompt_attention(query, key, value, gate, 0.3, softcap=softcap)
    torch.testing.assert_close(term.double(), oracle(query, key, value, gate, 0.3, softcap), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 4e-3), (torch.bfloat16, 3e-2)])
def test_half_precision_stays_near_the_oracle(dtype, tolerance):
    query, key, value = torch.randn(2, 4, 6, 8), torch.randn(1, 2, 5, 8), torch.randn(1, 2, 5, 8)
    query, key, value = (x.to(dtype) for x in (query, key, value))
    gate = torch.full((4, 1, 1), 0.8)
    term = gated_prompt_attention(query, key, value, gate, 0.35)
    assert term.dtype == dtype
    torch.testing.assert_close(term.double(), oracle(query, key, value, gate, 0.35), atol=tolerance, rtol=tolerance)


def test_gradients_equal_finite_differences():
    query, key, value = torch.randn(2, 4, 3, 5), torch.randn(1, 2, 3, 5), torch.randn(1, 2, 3, 5)
    inputs = [x.double().requires_grad_() for x in (query, key, value, torch.randn(4, 1, 1))]
    assert torch.autograd.gradcheck(lambda q, k, v, g: gated_prompt_attention(q, k, v, g, 0.4, softcap=2.0), inputs)


def test_the_order_of_prompts_is_irrelevant():
    query, key, value = torch.randn(1, 2, 3, 4), torch.randn(1, 2, 6, 4), torch.randn(1, 2, 6, 4)
    order = torch.randperm(6)
    plain = gated_prompt_attention(query, key, value, torch.ones(2), 0.5)
    shuffled = gated_prompt_attention(query, key[:, :, order], value[:, :, order], torch.ones(2), 0.5)
    torch.testing.assert_close(plain, shuffled)


def test_identity_gate_is_not_tanh():
    query, key, value = torch.randn(1, 2, 3, 4), torch.randn(1, 2, 6, 4), torch.randn(1, 2, 6, 4)
    gate = torch.tensor([0.5, -0.2])
    tanh = gated_prompt_attention(query, key, value, gate, 0.5)
    identity = gated_prompt_attention(query, key, value, gate.tanh(), 0.5, activation="identity")
    torch.testing.assert_close(tanh, identity)


@pytest.mark.parametrize(
    ("kv_heads", "gates", "message"), [(3, 4, "3 heads of keys"), (2, 3, "not 3"), (2, 2, "not 2")]
)
def test_impossible_shapes_are_refused(kv_heads, gates, message):
    key = torch.randn(1, kv_heads, 2, 4)
    with pytest.raises(ValueError, match=message):
        gated_prompt_attention(torch.randn(1, 4, 3, 4), key, key, torch.zeros(gates), 0.5)


def test_the_parameters_of_a_layer():
    torch.manual_seed(0)
    planted = GatedPrompt(1000, 64, 4, init_std=0.3)
    assert {name: tuple(p.shape) for name, p in planted.named_parameters()} == {
        "prompt": (1000, 64),
        "gate": (4, 1, 1),
    }
    assert not planted.gate.any()
    assert planted.prompt.std().item() == pytest.approx(0.3, rel=0.02)
    assert dict(GatedPrompt(2, 8, 4, activation="none").named_parameters()).keys() == {"prompt"}
    assert GatedPrompt(2, 8, 4, per_head=False, gate_init=2.0).gate.tolist() == [[[2.0]]]
