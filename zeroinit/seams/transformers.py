"""The seam of Hugging Face transformers: one attention function, registered under a name of its own.

It calls the function that the user had (sdpa, eager, flash, flex) and adds the prompts' term to the context it
returns, from the very query it was handed: after rotary embedding, after any query norm, before the output map.
The mask function is registered under the same name, or transformers would pass no mask and lose causality.
"""

import contextlib
import dis
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

from zeroinit.prompts import LayerPrompts, State, Switch
from zeroinit.seams import Layout, Projection, Seam, Site, UnsupportedHostError, continued, remove_hooks

PREFIX = "zeroinit_"
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
# Parts that act on queries alone, on scores by position, or on the context after the term has joined it.
_APART = (
    set(_QUERIES)
    | {"q_norm", "query_layernorm", "q_layernorm", "q_layer_norm", "sinks", "scaling", "rotary_emb", "q_attn"}
    | {"o_proj", "out_proj", "dense", "proj", "projection", "projection_layer", "Wo", "to_out", "c_proj"}
    | {"out_lin", "linear_out", "output", "o", "gate_proj", "gate_bias", "g_proj", "attn_sub_norm", "o_norm"}
    | {"inner_attn_ln", "LayerNorm", "out_drop", "proj_drop", "indexer"}
    | {"relative_attention_bias", "relative_position_bias", "linear_pos", "relative_k_proj", "distance_embedding"}
    | {"pos_bias_u", "pos_bias_v", "bias_u", "bias_v"}
)
# Of these, what is added to scores by the place of a key.
_POSITIONAL = {"relative_attention_bias", "relative_position_bias", "linear_pos", "relative_k_proj"} | {
    "distance_embedding",
    "pos_bias_u",
    "pos_bias_v",
    "bias_u",
    "bias_v",
}
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


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *args: Any,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """The user's attention function plus the term: context (batch, tokens, heads, head_dim), weights or None."""
    function, prompts = _host_attention(module), module._modules.get("zeroinit")
    if not isinstance(prompts, LayerPrompts):
        return function(module, query, key, value, attention_mask, *args, **kwargs)
    if prefix := prompts.keys_ahead(module, query):
        attention_mask = _mask_behind(prefix[0].shape[2], attention_mask, module, query, key, kwargs)
        key, value = (torch.cat([x, own], dim=2) for x, own in zip(prefix, (key, value), strict=True))
        context, weights = function(module, query, key, value, attention_mask, *args, **kwargs)
        return context, None if weights is None else weights[..., prefix[0].shape[2] :]
    context, weights = function(module, query, key, value, attention_mask, *args, **kwargs)
    scale = kwargs.get("scaling")
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    term = prompts.term(module, query, scale, kwargs.get("softcap"))
    if term is None:
        return context, weights
    term = term.transpose(1, 2).to(context.dtype)
    return (context + term if torch.is_grad_enabled() else context.add_(term)), weights


def _mask_behind(
    prefix: int, mask: Any, module: nn.Module, query: Tensor, key: Tensor, options: Mapping[str, Any]
) -> Tensor | None:
    """The host's mask with so many more keys in front, which every token sees.

    Raises:
        UnsupportedHostError: if the mask is of a kind that cannot be extended.
    """
    implementation = module.config._attn_implementation.removeprefix(PREFIX)  # type: ignore[union-attr]
    windowed = "flash" in implementation and options.get("sliding_window")
    packed = options.get("cu_seq_lens_q") is not None
    if not (mask is None or isinstance(mask, Tensor)) or windowed or packed:
        raise UnsupportedHostError(
            f"a prefix cannot go before the keys of {implementation} attention here: set attn_implementation to sdpa"
        )
    if mask is not None:  # (batch, keys) of flash attention, else (batch, 1, tokens, keys), added or allowed
        seen = True if mask.dtype == torch.bool else float(mask.dim() == 2)
        return F.pad(mask, (prefix, 0), value=seen)
    causal = options.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    if implementation != "sdpa" or not causal or query.shape[2] == 1:
        return None
    # Without a mask, sdpa counts tokens and keys from the first of each; a prefix would be hidden.
    tokens, keys = query.shape[2], key.shape[2]
    return torch.ones(tokens, keys + prefix, dtype=torch.bool, device=query.device).tril(prefix)[None, None]


def _host_attention(module: nn.Module) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """The function that the module would have called without us."""
    config: Any = module.config
    implementation = config._attn_implementation.removeprefix(PREFIX)
    interface, eager = _dispatch(type(module))
    function = interface.get_interface(implementation, eager)
    return _under_its_own_name(function, config, implementation) if "flash" in implementation else function


def _under_its_own_name(function: Callable[..., Any], config: Any, implementation: str) -> Callable[..., Any]:
    """Flash attention reads the implementation's name again while it runs: show it the user's."""

    def call(*args: Any, **kwargs: Any) -> Any:
        config._attn_implementation_internal = implementation
        try:
            return function(*args, **kwargs)
        finally:
            config._attn_implementation_internal = PREFIX + implementation

    return call


_DISPATCH: dict[type[nn.Module], tuple[AttentionInterface, Callable[..., Any]]] = {}


def _dispatch(cls: type[nn.Module]) -> tuple[AttentionInterface, Callable[..., Any]]:
    """The interface and the eager function that a module's forward names."""
    if cls not in _DISPATCH:
        forward: Any = inspect.unwrap(cls.forward)
        names = forward.__code__.co_names
        eager = next((name for name in names if name.endswith("eager_attention_forward")), None)
        scope = forward.__globals__
        _DISPATCH[cls] = scope["ALL_ATTENTION_FUNCTIONS"], scope.get(eager or "", None)
    return _DISPATCH[cls]


def _wrap(config: Any) -> None:
    """Put our function over the attention implementation that a config names."""
    name = _register(config._attn_implementation.removeprefix(PREFIX))
    if config._attn_implementation != name:
        config._attn_implementation_internal = name


def _register(implementation: str) -> str:
    """Make our function over an implementation known to transformers; returns its name."""
    name = PREFIX + implementation
    if name not in ALL_ATTENTION_FUNCTIONS:
        AttentionInterface.register(name, attention)
        if implementation in ALL_MASK_ATTENTION_FUNCTIONS:
            AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[implementation])
    return name


# Now, for a model that comes out of a pickle asks for its mask before its first forward pass.
for _known in ("eager", *list(ALL_ATTENTION_FUNCTIONS)):
    _register(_known.removeprefix(PREFIX))


@dataclass(eq=False)
class Shared:
    """What the hook on a base model needs, hung on it outside the module tree."""

    switch: Switch
    configs: list[Any]
    rotary: bool


@dataclass(eq=False)
class Replay:
    """A module's checkpointing function; what it recomputes sees the state of its own forward."""

    checkpoint: Callable[..., Any]
    switch: Switch

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Checkpoint a function, and keep the state with it."""
        if torch.compiler.is_compiling():
            return self.checkpoint(function, *args, **kwargs)
        return self.checkpoint(partial(self._run, self.switch.state, function), *args, **kwargs)

    @classmethod
    def over(cls, module: nn.Module, switch: Switch) -> None:
        """Stand in for the checkpointing function of a module, if it has one."""
        for name in _CHECKPOINTING:
            function = module.__dict__.get(name)
            if function is not None and not isinstance(function, Replay):
                module.__dict__[name] = cls(function, switch)

    @staticmethod
    def off(module: nn.Module) -> None:
        """Give a module its own checkpointing function back."""
        for name in _CHECKPOINTING:
            if isinstance(replay := module.__dict__.get(name), Replay):
                module.__dict__[name] = replay.checkpoint

    def _run(self, state: State, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        before, self.switch.state = self.switch.state, state
        try:
            return function(*args, **kwargs)
        finally:
            self.switch.state = before


# Where transformers keeps that function on a module, and where torch's ``checkpoint_wrapper`` does.
_CHECKPOINTING = ("_gradient_checkpointing_func", "checkpoint_fn")


def _prepare(
    base: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Before the base model runs: keep the seam in place, and give rotary hosts their positions.

    Raises:
        ValueError: if a ``prompt_condition`` came down here, where nothing takes it; hosts ignore what they do
            not know.
    """
    shared: Shared = base.__dict__["zeroinit_shared"]
    if kwargs.get("prompt_condition") is not None:
        raise ValueError(
            "a prompt_condition came down unused: no adapter takes one, or the model's forward was wrapped before "
            "`attach`; use `with zeroinit.conditioned(model, features):`"
        )
    for config in shared.configs:
        _wrap(config)
    if base.training and not torch.compiler.is_compiling():
        for module in base.modules():
            Replay.over(module, shared.switch)
    if not shared.rotary or kwargs.get("position_ids") is not None or not any(shared.switch.state.names):
        return None
    positions = _positions(base, args, kwargs)
    return None if positions is None else (args, {**kwargs, "position_ids": positions})


def _positions(base: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """(batch, tokens), counted from each row's first real token; None if the host can count them itself.

    The term depends on absolute positions, since queries are rotated and prompt keys are not. Rows without
    left padding get the positions that the host would give them.
    """
    given = inspect.signature(base.forward).bind_partial(*args, **kwargs).arguments if args else kwargs
    mask, tokens = given.get("attention_mask"), given.get("input_ids")
    tokens = given.get("inputs_embeds") if tokens is None else tokens
    if given.get("position_ids") is not None or not isinstance(mask, Tensor) or mask.dim() != 2:
        return None
    cache = continued(given)
    past = cache.get_seq_length() if cache is not None else 0
    if tokens is None or mask.shape[1] < past + tokens.shape[1]:
        return None
    leading = (mask.cumsum(-1) == 0).sum(-1, keepdim=True)
    positions = (torch.arange(mask.shape[1], device=mask.device)[None] - leading).clamp(min=0)
    return positions[:, past : past + tokens.shape[1]]  # a static cache's mask reaches beyond the tokens


class ModelSeam(Seam):
    """The seam of one transformers model."""

    model: PreTrainedModel

    @property
    def host_type(self) -> str:
        """The config's ``model_type``."""
        return str(self.model.config.model_type)

    def sites(self) -> list[Site]:
        """See ``Seam.sites``."""
        found: dict[str, nn.Module] = {
            name: module
            for name, module in self.model.named_modules()
            if _reachable(module) and not _is_cross(name, module)
        }
        if not found:
            raise UnsupportedHostError(
                f"{type(self.model).__name__} has no self-attention that calls AttentionInterface; {SUPPORTED}"
            )
        self._refuse_composites(found)
        if any(getattr(module.config, "output_attentions", False) for module in found.values()):
            raise UnsupportedHostError(
                "transformers takes config.output_attentions for attention named eager alone; "
                "unset it, and pass output_attentions=True to the forward pass"
            )
        return [self._site(name, module) for name, module in found.items()]

    def head_name(self) -> str | None:
        """``score``, ``classifier`` or ``qa_outputs``; a language-model head is never one."""
        names = ("score", "classifier", "qa_outputs")
        children = dict(self.model.named_children())
        return next((name for name in names if any(True for _ in children.get(name, nn.Module()).parameters())), None)

    def token_entry(self) -> nn.Module:
        """See ``Seam.token_entry``."""
        base = self._base(self.sites()[0].name)
        if not {"inputs_embeds", "attention_mask"} <= set(inspect.signature(base.forward).parameters):
            raise UnsupportedHostError(f"{type(base).__name__} takes no embeddings instead of tokens")
        return base

    def beside_head(self) -> list[str]:
        """See ``Seam.beside_head``."""
        known = {self.head_name(), self.model.base_model_prefix, "zeroinit"}
        if self.head_name() is None:
            return []
        return [n for n, part in self.model.named_children() if n not in known and any(True for _ in part.parameters())]

    def refuse_prefix(self) -> None:
        """See ``Seam.refuse_prefix``."""
        for site in self.sites():
            if biased := sorted(_POSITIONAL & set(_parts(site.module))):
                raise UnsupportedHostError(
                    f"{type(site.module).__name__} adds {biased[0]} to its scores, which a prefix has no place in"
                )

    def open(self) -> None:
        """See ``Seam.open``."""
        adapted = {
            name: module
            for name, module in self.model.named_modules()
            if isinstance(module._modules.get("zeroinit"), LayerPrompts)
        }
        base = self._base(next(iter(adapted)))
        for module in adapted.values():
            _wrap(module.config)
        base.__dict__["zeroinit_shared"] = Shared(
            switch=next(iter(adapted.values())).zeroinit.switch,  # type: ignore[union-attr]
            configs=list({id(module.config): module.config for module in adapted.values()}.values()),
            rotary=_is_rotary(base),
        )
        if _prepare not in base._forward_pre_hooks.values():
            base.register_forward_pre_hook(_prepare, with_kwargs=True)

    def close(self) -> None:
        """See ``Seam.close``."""
        remove_hooks(self.model, (_prepare,))
        for module in self.model.modules():
            module.__dict__.pop("zeroinit_shared", None)
            Replay.off(module)
            config: Any = getattr(module, "config", None)
            name = getattr(config, "_attn_implementation", None)
            if isinstance(name, str):
                config._attn_implementation_internal = name.removeprefix(PREFIX)

    def _site(self, name: str, module: nn.Module) -> Site:
        heads, query_map, projection = _projection(name, module)
        width, _ = _size(getattr(module, projection.key))
        return Site(name, module, self._block(name), width, heads, query_map, projection)

    def _refuse_composites(self, found: dict[str, nn.Module]) -> None:
        """Several towers, or an encoder with a decoder: which one is meant cannot be guessed."""
        paths = {module: path for path, module in self.model.named_modules()}
        towers = dict.fromkeys(paths[self._base(name)] for name in found)
        if len(towers) > 1:
            raise UnsupportedHostError(
                f"{type(self.model).__name__} has several towers; attach to the one you mean: "
                + ", ".join(f".{path}" for path in towers)
            )
        (tower,) = towers
        own = {type(self.model.config), type(self.model.config.get_text_config())}
        if type(self.model.get_submodule(tower).config) not in own:
            raise UnsupportedHostError(
                f"only a part of {type(self.model).__name__} can be adapted; if you mean it, attach to .{tower}"
            )

    def _chain(self, name: str) -> list[nn.Module]:
        """The modules from the model down to the one of this path."""
        parts = name.split(".") if name else []
        return [self.model.get_submodule(".".join(parts[:depth])) for depth in range(len(parts) + 1)]

    def _base(self, name: str) -> nn.Module:
        """The innermost model that owns a module: the one that makes positions and masks."""
        return next(m for m in reversed(self._chain(name)) if isinstance(m, PreTrainedModel))

    def _block(self, name: str) -> nn.Module:
        """The transformer block of an attention module: the element of a list of layers that holds it."""
        chain = self._chain(name)
        inside = [b for a, b in pairwise(chain) if isinstance(a, nn.ModuleList)]
        return inside[-1] if inside else chain[-1]


def _reachable(module: nn.Module) -> bool:
    """Whether a module's forward dispatches its attention through the interface."""
    code = getattr(inspect.unwrap(type(module).forward), "__code__", None)
    return code is not None and "ALL_ATTENTION_FUNCTIONS" in code.co_names


def _is_cross(name: str, module: nn.Module) -> bool:
    """Cross-attention and pooling attention see other tokens than a layer's own."""
    text = f"{name.rpartition('.')[2]} {type(module).__name__}".lower()
    named = any(word in text for word in ("cross", "encoder_attn", "encdec", "pool"))
    nested = any(word in name.lower() for word in ("crossattention", "encoder_decoder_attention"))
    return named or nested or bool(getattr(module, "is_cross_attention", False))


def _is_rotary(base: nn.Module) -> bool:
    rotary = any("rotary" in type(module).__name__.lower() for module in base.modules())
    return rotary and "position_ids" in inspect.signature(base.forward).parameters


def _projection(name: str, module: nn.Module) -> tuple[int, str, Projection]:
    """(heads of queries, the query map's name, how keys and values are made), from the names of a module's parts.

    Raises:
        UnsupportedHostError: if a part is not known: it could change keys or values unseen.
    """
    parts = _parts(module)
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
        kv_heads = _size(getattr(module, maps[0]))[1] // head_dim
    else:
        kv_heads = _number(module, "num_key_value_heads", "num_kv_heads", "kv_heads") or heads
    clip = getattr(module.config, "clip_qkv", None) or getattr(module, "clip_qkv", None)
    factors = (getattr(module, _KEY_FACTOR, None) or 1.0, getattr(module, _VALUE_FACTOR, None) or 1.0)
    projection = Projection(maps[0], maps[1], kv_heads, head_dim or 0, layout, *norms, clip, factors=factors)
    return heads, _first(_QUERIES, parts) or maps[0], projection


def _parts(module: nn.Module) -> set[str]:
    """The names of a module's own parts and parameters."""
    parts = {child for child, part in module.named_children() if child != "zeroinit" and part is not None}
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
    if not _dispatch(type(module))[1]:
        return "has no eager attention"
    if not all(_is_linear(getattr(module, str(part))) for part in maps):
        return f"maps keys with a {type(getattr(module, str(maps[0]))).__name__}, which is no linear map"
    if norms[0] and any(True for _ in getattr(module, norms[0]).children()):
        return "normalizes each head of its keys by a module of its own"
    return None


def _reads(cls: type[nn.Module]) -> set[str]:
    """The names that a module's forward takes from the module."""
    steps = list(dis.get_instructions(inspect.unwrap(cls.forward)))
    return {
        after.argval
        for before, after in pairwise(steps)
        if after.opname in ("LOAD_ATTR", "LOAD_METHOD")
        and (before.argval[-1:] == ("self",) if isinstance(before.argval, tuple) else before.argval == "self")
    }


def _is_linear(part: Any) -> bool:
    """Whether a part is a linear map, plain, quantized or GPT-2's transposed one, or a thin cover of one."""
    inner = _inner(part)
    return hasattr(inner, "in_features") or getattr(getattr(inner, "weight", None), "ndim", 0) == 2


def _inner(part: Any) -> Any:
    return part if hasattr(part, "weight") or hasattr(part, "in_features") else getattr(part, "linear", None)


def _size(part: Any) -> tuple[int, int]:
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


__all__ = ["ModelSeam", "attention"]
