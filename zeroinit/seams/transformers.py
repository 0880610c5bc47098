"""The seam of Hugging Face transformers: one attention function, registered under a name of its own.

It calls the function that the user had (sdpa, eager, flash, flex) and adds the prompts' term to the context it
returns, from the very query it was handed: after rotary embedding, after any query norm, before the output map.
The mask function is registered under the same name, or transformers would pass no mask and lose causality.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from zeroinit.prompts import LayerPrompts, State, Switch
from zeroinit.seams import Seam, Site, UnsupportedHostError, continued, remove_hooks
from zeroinit.seams._attentions import (
    POSITIONAL,
    SUPPORTED,
    dispatch,
    is_cross,
    parts_of,
    projection_of,
    reachable,
    size_of,
)
from zeroinit.tree import hooks, named, ours

PREFIX = "zeroinit_"
_FUNCTIONS: Any = ALL_ATTENTION_FUNCTIONS
_MASKS: Any = ALL_MASK_ATTENTION_FUNCTIONS
"""What transformers can be asked for by name; neither has types."""


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
    function, prompts = _host_attention(module), ours(module)
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
    interface, eager = dispatch(type(module))
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


def _wrap(config: Any) -> None:
    """Put our function over the attention implementation that a config names."""
    name = _register(config._attn_implementation.removeprefix(PREFIX))
    if config._attn_implementation != name:
        config._attn_implementation_internal = name


def _register(implementation: str) -> str:
    """Make our function over an implementation known to transformers; returns its name."""
    name = PREFIX + implementation
    if name not in _FUNCTIONS:
        _FUNCTIONS.register(name, attention)
        if implementation in _MASKS:
            _MASKS.register(name, _MASKS[implementation])
    return name


# Now, for a model that comes out of a pickle asks for its mask before its first forward pass.
for _known in ("eager", *list(_FUNCTIONS)):
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
            name: module for name, module in named(self.model) if reachable(module) and not is_cross(name, module)
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
            if biased := sorted(POSITIONAL & set(parts_of(site.module))):
                raise UnsupportedHostError(
                    f"{type(site.module).__name__} adds {biased[0]} to its scores, which a prefix has no place in"
                )

    def open(self) -> None:
        """See ``Seam.open``."""
        adapted = {name: module for name, module in named(self.model) if isinstance(ours(module), LayerPrompts)}
        base = self._base(next(iter(adapted)))
        for module in adapted.values():
            _wrap(module.config)
        base.__dict__["zeroinit_shared"] = Shared(
            switch=next(iter(adapted.values())).zeroinit.switch,  # type: ignore[union-attr]
            configs=list({id(module.config): module.config for module in adapted.values()}.values()),
            rotary=_is_rotary(base),
        )
        if _prepare not in hooks(base, before=True).values():
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
        heads, query_map, projection = projection_of(name, module)
        width, _ = size_of(getattr(module, projection.key))
        return Site(name, module, self._block(name), width, heads, query_map, projection)

    def _refuse_composites(self, found: dict[str, nn.Module]) -> None:
        """Several towers, or an encoder with a decoder: which one is meant cannot be guessed."""
        paths = {module: path for path, module in named(self.model)}
        towers = dict.fromkeys(paths[self._base(name)] for name in found)
        if len(towers) > 1:
            raise UnsupportedHostError(
                f"{type(self.model).__name__} has several towers; attach to the one you mean: "
                + ", ".join(f".{path}" for path in towers)
            )
        (tower,) = towers
        whole: Any = self.model
        own: set[object] = {type(whole.config), type(whole.config.get_text_config())}
        if type(whole.get_submodule(tower).config) not in own:
            raise UnsupportedHostError(
                f"only a part of {type(self.model).__name__} can be adapted; if you mean it, attach to .{tower}"
            )

    def _base(self, name: str) -> nn.Module:
        """The innermost model that owns a module: the one that makes positions and masks."""
        return next(m for m in reversed(self.chain(name)) if isinstance(m, PreTrainedModel))

    def _block(self, name: str) -> nn.Module:
        """The transformer block of an attention module: the element of a list of layers that holds it."""
        chain = self.chain(name)
        inside = [b for a, b in pairwise(chain) if isinstance(a, nn.ModuleList)]
        return inside[-1] if inside else chain[-1]


def _is_rotary(base: nn.Module) -> bool:
    rotary = any("rotary" in type(module).__name__.lower() for module in base.modules())
    return rotary and "position_ids" in inspect.signature(base.forward).parameters
