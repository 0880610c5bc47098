"""An independent float64 LLaMA with gated prompts, from a state dict alone: no line of the library or the host.

It covers what LLaMA, Mistral and Qwen3 share: rotary halves, grouped queries, any head_dim, optional biases and
query/key norms.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def _rms(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x * (x.pow(2).mean(-1, keepdim=True) + eps).rsqrt() * weight


def _rotate(x: Tensor, theta: float) -> Tensor:
    half = x.shape[-1] // 2
    frequency = theta ** -(torch.arange(half, dtype=torch.float64) / half)
    angle = torch.arange(x.shape[-2], dtype=torch.float64)[:, None] * frequency
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()], -1)


def llama(state: dict[str, Tensor], config, ids: Tensor, prompts: dict[int, tuple[Tensor, Tensor]]) -> Tensor:
    """Logits (batch, tokens, vocabulary); prompts: layer → (prompt (length, width), opened gate (heads or 1,))."""
    w = {key: value.double() for key, value in state.items()}
    heads, kv_heads, size = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    theta = config.rope_parameters["rope_theta"]
    x = w["model.embed_tokens.weight"][ids]
    causal = torch.full((ids.shape[1], ids.shape[1]), float("-inf"), dtype=torch.float64).triu(1)
    for layer in range(config.num_hidden_layers):
        at = f"model.layers.{layer}."

        def project(tokens: Tensor, name: str, count: int, at: str = at) -> Tensor:
            bias = w.get(f"{at}self_attn.{name}_proj.bias")
            out = F.linear(tokens, w[f"{at}self_attn.{name}_proj.weight"], bias)
            out = out.view(*tokens.shape[:-1], count, size).transpose(-2, -3)
            norm = w.get(f"{at}self_attn.{name}_norm.weight")
            return out if norm is None else _rms(out, norm, config.rms_norm_eps)

        hidden = _rms(x, w[at + "input_layernorm.weight"], config.rms_norm_eps)
        query = _rotate(project(hidden, "q", heads), theta)
        key, value = _rotate(project(hidden, "k", kv_heads), theta), project(hidden, "v", kv_heads)
        contexts = []
        for head in range(heads):
            group = head // (heads // kv_heads)
            scores = query[:, head] @ key[:, group].mT * size**-0.5 + causal
            context = scores.softmax(-1) @ value[:, group]
            if layer in prompts:
                prompt, gate = prompts[layer]
                prompt_key = project(prompt.double(), "k", kv_heads)[group]
                prompt_value = project(prompt.double(), "v", kv_heads)[group]
                opening = gate.double().flatten()[head if gate.numel() > 1 else 0]
                weights = (query[:, head] @ prompt_key.mT * size**-0.5).softmax(-1)
                context = context + opening * (weights @ prompt_value)
            contexts.append(context)
        x = x + F.linear(
            torch.cat(contexts, -1), w[at + "self_attn.o_proj.weight"], w.get(at + "self_attn.o_proj.bias")
        )
        hidden = _rms(x, w[at + "post_attention_layernorm.weight"], config.rms_norm_eps)
        gated = F.silu(F.linear(hidden, w[at + "mlp.gate_proj.weight"])) * F.linear(
            hidden, w[at + "mlp.up_proj.weight"]
        )
        x = x + F.linear(gated, w[at + "mlp.down_proj.weight"])
    return F.linear(_rms(x, w["model.norm.weight"], config.rms_norm_eps), w["lm_head.weight"])
