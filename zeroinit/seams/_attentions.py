"""What transformers calls the parts of its attention modules, and what their forwards read: how each makes its keys.

A module whose forward reads a name that the tables do not know is refused, never guessed at.
"""

import contextlib
import dis
import inspect
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

from torch import nn

from zeroinit.seams import Layout, Projection, UnsupportedHostError

SUPPORTED = (
    "supported are self-attentions that call transformers' AttentionInterface with separate, stacked or "
    "interleaved key and value maps: LLaMA, Mistral, Qwen, Gemma, Phi, GPT-2, OPT, BERT, "
    "RoBERTa, ViT, CLIP and most others"
)

_QUERIES = ("q_proj", "query", "q_lin", "linear_q", "Wq", "to_q", "q")
_KEYS = ("k_proj", "key", "k_lin", "linear_k", "Wk", "to_k", "k")
_VALUES = ("v_proj", "value", "v_lin", "linear_v", "Wv", "to_v", "v")
_FUSED: dict[str, Layout] = {
    "qkv_proj": "stacked",
    "c_attn": "stacked",
    "Wqkv": "stacked",
    "qkv": "stacked",
    "query_key_value": "interleaved",
}
_HEADS = ("num_heads", "num_attention_heads", "n_heads", "num_query_heads")
_HEAD_DIMS = ("head_dim", "attention_head_size", "dim_per_head", "attention_head_dim", "d_k", "head_size")
_KEY_NORMS = ("k_norm", "key_layernorm", "k_layernorm", "k_layer_norm", "qk_norm")
_VALUE_NORMS = ("v_norm",)
# What is added to scores by the place of a key.
POSITIONAL = (
    {"relative_attention_bias", "relative_position_bias", "linear_pos"}
    | {"relative_k_proj", "distance_embedding"}
    | {"pos_bias_u", "pos_bias_v", "bias_u", "bias_v"}
)
# Parts that act on queries alone, on scores by position, or on the context after the term has joined it.
_APART = (
    set(_QUERIES)
    | {"q_norm", "query_layernorm", "q_layernorm", "q_layer_norm", "sinks", "scaling", "rotary_emb", "q_attn"}
    | {"o_proj", "out_proj", "dense", "proj", "projection", "projection_layer", "Wo", "to_out", "c_proj"}
    | {"out_lin", "linear_out", "output", "o", "gate_proj", "gate_bias", "g_proj", "attn_sub_norm", "o_norm"}
    | {"inner_attn_ln", "LayerNorm", "out_drop", "proj_drop", "indexer"}
    | POSITIONAL
)
# Numbers, switches and helpers that a forward reads, under which the maps and norms above stay all there is.
_HARMLESS = (
    {"config", "training", "layer_idx", "layer_type", "is_causal", "is_cross_attention", "is_decoder"}
    | {"head_dim", "v_head_dim", "head_size", "attention_head_size", "all_head_size", "key_value_proj_dim"}
    | {"embed_dim", "q_dim", "kv_dim", "split_size", "clip_qkv", "position_embedding_type", "position_embeddings_type"}
    | {"num_heads", "num_attention_heads", "num_key_value_heads", "num_key_value_groups", "hidden_size", "n_heads"}
    | {"scaling", "scale", "softmax_scale", "attn_logit_softcapping", "attn_scale", "floor_scale", "qk_scale_factor"}
    | {"attn_temperature_tuning", "sliding_window", "is_sliding", "is_local_attention", "use_rope", "force_rope"}
    | {"rotary_ndims", "use_qk_norm", "qk_layernorm", "qk_norm_type", "qk_norm", "multi_query", "gate_per_head"}
    | {"store_full_length_kv", "_upcast_and_reordered_attn", "deterministic_flash_attn"}
    | {"_split_heads", "_shape", "compute_bias", "has_relative_attention_bias", "_rel_shift", "_scale_query"}
    | {"apply_rotary_embeddings", "_apply_rotary_embedding", "get_position_ids"}
)
# What multiplies keys or values after their maps.
_KEY_FACTOR, _VALUE_FACTOR = "key_multiplier", "v_scale"
# Whole attentions that no name gives away.
_REFUSED = {
    "OpenAIPrivacyFilterAttention": "multiplies its keys by the scale that it then does not pass on",
}


def reachable(module: nn.Module) -> bool:
    """Whether a module's forward dispatches its attention through the interface."""
    code = getattr(inspect.unwrap(type(module).forward), "__code__", None)
    return code is not None and "ALL_ATTENTION_FUNCTIONS" in code.co_names


def is_cross(name: str, module: nn.Module) -> bool:
    """Cross-attention and pooling attention see other tokens than a layer's own."""
    text = f"{name.rpartition('.')[2]} {type(module).__name__}".lower()
    named = any(word in text for word in ("cross", "encoder_attn", "encdec", "pool"))
    nested = any(word in name.lower() for word in ("crossattention", "encoder_decoder_attention"))
    return named or nested or bool(getattr(module, "is_cross_attention", False))


_DISPATCH: dict[type[nn.Module], tuple[Any, Callable[..., Any] | None]] = {}


def dispatch(cls: type[nn.Module]) -> tuple[Any, Callable[..., Any] | None]:
    """The interface and the eager function that a module's forward names; None where it names none."""
    if cls not in _DISPATCH:
        forward: Any = inspect.unwrap(cls.forward)
        names = forward.__code__.co_names
        eager = next((name for name in names if name.endswith("eager_attention_forward")), None)
        scope = forward.__globals__
        _DISPATCH[cls] = scope["ALL_ATTENTION_FUNCTIONS"], scope.get(eager or "", None)
    return _DISPATCH[cls]


def projection_of(name: str, module: nn.Module) -> tuple[int, str, Projection]:
    """(heads of queries, the query map's name, how keys and values are made), from the names of a module's parts.

    Raises:
        UnsupportedHostError: if a part is not known: it could change keys or values unseen.
    """
    parts = parts_of(module)
    key, value, fused = _first(_KEYS, parts), _first(_VALUES, parts), _first(_FUSED, parts)
    if value is None and hasattr(module, "v_proj"):
        value = key  # Gemma 4: what is missing on purpose is shared with the keys
    maps = (key, value) if key and value else (fused, fused)
    norms = _first(_KEY_NORMS, parts), _first(_VALUE_NORMS, parts)
    heads = _number(module, *_HEADS)
    head_dim = _number(module, *_HEAD_DIMS)
    refusal = _refusal(module, parts, maps, norms)
    if refusal is None and (heads is None or (head_dim is None and key is None)):
        refusal = "does not say how many heads it has"
    if refusal is not None or heads is None or maps[0] is None or maps[1] is None:
        raise UnsupportedHostError(f"{type(module).__name__} at .{name} {refusal}; {SUPPORTED}")
    layout: Layout = "separate" if key and value else _FUSED[str(fused)]
    if getattr(module, "multi_query", None) is False:
        layout = "interleaved"
    if layout == "separate" and head_dim:
        kv_heads = size_of(getattr(module, maps[0]))[1] // head_dim
    else:
        kv_heads = _number(module, "num_key_value_heads", "num_kv_heads", "kv_heads") or heads
    clip = getattr(module.config, "clip_qkv", None) or getattr(module, "clip_qkv", None)
    factors = (getattr(module, _KEY_FACTOR, None) or 1.0, getattr(module, _VALUE_FACTOR, None) or 1.0)
    projection = Projection(maps[0], maps[1], kv_heads, head_dim or 0, layout, *norms, clip, factors=factors)
    return heads, _first(_QUERIES, parts) or maps[0], projection


def parts_of(module: nn.Module) -> set[str]:
    """The names of a module's own parts and parameters."""
    parts = {child for child, _ in module.named_children() if child != "zeroinit"}
    return parts | {parameter for parameter, _ in module.named_parameters(recurse=False)}


def _first(names: Iterable[str], parts: set[str]) -> str | None:
    return next((name for name in names if name in parts), None)


def _refusal(
    module: nn.Module, parts: set[str], maps: tuple[str | None, ...], norms: tuple[str | None, ...]
) -> str | None:
    """Why the keys and values of a module cannot be told for sure; None if they can."""
    if type(module).__name__ in _REFUSED:
        return _REFUSED[type(module).__name__]
    if None in maps:
        return f"has no key and value maps known here, only {sorted(parts)}"
    read = {part for part in _reads(type(module)) if not any(getattr(module, part, None) is x for x in (None, False))}
    strange = (parts | read) - _APART - _HARMLESS - {*maps, *norms, _KEY_FACTOR, _VALUE_FACTOR}
    strange = {part for part in strange if "dropout" not in part}
    if strange:
        return f"reads {sorted(strange)}, which may change keys or values"
    if not dispatch(type(module))[1]:
        return "has no eager attention"
    if not all(_is_linear(getattr(module, str(part))) for part in maps):
        return f"maps keys with a {type(getattr(module, str(maps[0]))).__name__}, which is no linear map"
    if norms[0] and any(True for _ in getattr(module, norms[0]).children()):
        return "normalizes each head of its keys by a module of its own"
    return None


def _reads(cls: type[nn.Module]) -> set[str]:
    """The names that a module's forward takes from the module."""
    steps: Any = pairwise(dis.get_instructions(inspect.unwrap(cls.forward)))
    return {
        after.argval for before, after in steps if after.opname in ("LOAD_ATTR", "LOAD_METHOD") and _loads_self(before)
    }


def _loads_self(step: Any) -> bool:
    """Whether a step loads `self`, alone or as the second of two names."""
    return step.argval == "self" or (step.opname.count("LOAD_FAST") == 2 and step.argval[-1] == "self")


def _is_linear(part: Any) -> bool:
    """Whether a part is a linear map, plain, quantized or GPT-2's transposed one, or a thin cover of one."""
    inner = _inner(part)
    return hasattr(inner, "in_features") or getattr(getattr(inner, "weight", None), "ndim", 0) == 2


def _inner(part: Any) -> Any:
    return part if hasattr(part, "weight") or hasattr(part, "in_features") else getattr(part, "linear", None)


def size_of(part: Any) -> tuple[int, int]:
    """(width of tokens, how many numbers it returns for one) of a linear map."""
    inner = _inner(part)
    return (inner.in_features, inner.out_features) if hasattr(inner, "in_features") else tuple(inner.weight.shape)


def _number(module: nn.Module, *names: str) -> int | None:
    """The first of these numbers that a module, or else its config, has; one of each layer is no number."""
    for owner in (module, getattr(module, "config", None)):
        for name in names:
            with contextlib.suppress(RuntimeError):
                number = getattr(owner, name, None)
                if isinstance(number, int) and not isinstance(number, bool):
                    return number
    return None
