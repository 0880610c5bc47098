"""Zero-init gated prompt attention: ``tanh(g) · softmax(q kᵀ s) v``, a term added to a host's attention.

Zhang et al., *LLaMA-Adapter: Efficient Fine-tuning of Language Models with Zero-init Attention*
(https://arxiv.org/abs/2303.16199, eq. 5-8), as its training code computes it: the prompts have a softmax of
their own, one gate a head opens it, and the tokens' attention is left as it is. Known elsewhere as
LLaMA-Adapter, AdaptionPrompt and zero-init attention.

Axes, in the whole project: ``batch``, ``heads`` (of queries), ``kv_heads`` (of keys and values), ``tokens``,
``prompt`` (the prompt's length), ``head_dim``, ``width`` (of the host's tokens).
"""

from typing import Literal

import torch
from torch import Tensor, nn

Gate = Literal["tanh", "identity", "none"]


def open_gate(gate: Tensor, activation: Gate = "tanh") -> Tensor:
    """The factor that a gate parameter stands for: ``tanh(g)``, or ``g`` itself.

    Raises:
        ValueError: if the activation is neither "tanh", "identity" nor "none".
    """
    if activation == "tanh":
        return gate.tanh()
    if activation in ("identity", "none"):
        return gate
    raise ValueError(f'gate is "tanh", "identity" or "none", not {activation!r}')


def gated_prompt_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    gate: Tensor,
    scale: float,
    *,
    activation: Gate = "tanh",
    softcap: float | None = None,
) -> Tensor:
    """The term that prompts add to the context of the tokens' attention.

    Args:
        query: (batch, heads, tokens, head_dim), as the host uses it.
        key: (1 or batch, kv_heads, prompt, head_dim); kv_heads divides heads.
        value: (1 or batch, kv_heads, prompt, head_dim of the values).
        gate: one parameter a head, or a single one, before its activation; any shape of that many elements.
        scale: what the host multiplies its scores with, usually ``head_dim ** -0.5``.
        activation: how the gate opens.
        softcap: scores become ``softcap · tanh(scores / softcap)`` where the host caps its own so.

    Returns:
        (batch, heads, tokens, head_dim of the values), in the dtype of ``query``.

    Raises:
        ValueError: if the heads of keys do not divide those of queries, or the gate has another number.
    """
    batch, heads, tokens, head_dim = query.shape
    if heads % key.shape[1]:
        raise ValueError(f"{key.shape[1]} heads of keys do not divide {heads} heads of queries")
    if gate.numel() not in (1, heads):
        raise ValueError(f"a gate has 1 element or one for each of {heads} heads, not {gate.numel()}")
    factor = open_gate(gate, activation).reshape(-1, 1, 1).to(query.dtype)
    if key.shape[1] != heads:  # a repeat of one would copy
        key, value = (x.repeat_interleave(heads // x.shape[1], dim=1) for x in (key, value))
    if key.shape[0] == 1:
        # One prompt for all rows: the batch folds into the tokens, and each head is one plain product.
        # Hosts hand over views of (batch, tokens, heads, head_dim), for which this fold copies nothing.
        rows = query.transpose(0, 1).reshape(heads, batch * tokens, head_dim)
        term = _attend(rows, key.squeeze(0), value.squeeze(0), factor, scale, softcap)
        return term.view(heads, batch, tokens, -1).transpose(0, 1)
    return _attend(query, key, value, factor, scale, softcap)


def _attend(query: Tensor, key: Tensor, value: Tensor, factor: Tensor, scale: float, softcap: float | None) -> Tensor:
    """(… heads, tokens, head_dim): the gate multiplies the probabilities, the smallest of the tensors."""
    scores = (query @ key.mT) * scale
    if softcap is not None:
        scores = softcap * (scores / softcap).tanh()
    probabilities = scores.softmax(dim=-1, dtype=torch.promote_types(query.dtype, torch.float32))
    return (probabilities.to(query.dtype) * factor) @ value


class GatedPrompt(nn.Module):
    """The parameters of one adapted layer: a prompt and its gate.

    Attributes:
        prompt: (prompt, width), drawn from N(0, init_std²).
        gate: (heads, 1, 1), or (1, 1, 1) if one gate serves all heads; absent if ``activation`` is "none".
    """

    prompt: nn.Parameter
    gate: nn.Parameter | None

    def __init__(
        self,
        length: int,
        width: int,
        heads: int,
        *,
        activation: Gate = "tanh",
        per_head: bool = True,
        gate_init: float = 0.0,
        init_std: float = 1.0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        self.activation: Gate = activation
        self.prompt = nn.Parameter(torch.empty(length, width, dtype=dtype, device=device))
        if self.prompt.device.type != "meta":
            nn.init.normal_(self.prompt, std=init_std)
        if activation == "none":
            self.register_parameter("gate", None)
        else:
            shape = (heads if per_head else 1, 1, 1)
            self.gate = nn.Parameter(torch.full(shape, gate_init, dtype=dtype, device=device))

    def opening(self) -> Tensor:
        """What multiplies the probabilities: (heads or 1, 1, 1)."""
        return self.prompt.new_ones(1, 1, 1) if self.gate is None else open_gate(self.gate, self.activation)

    def extra_repr(self) -> str:
        """The shape, for ``print(model)``."""
        length, width = self.prompt.shape
        return f"length={length}, width={width}, gate={self.activation}"
