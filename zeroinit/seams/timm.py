"""The seam of timm: two hooks on an attention module, and no forward of ours.

``q_norm`` lets the true query be seen on its way; ``norm`` (else ``proj``) is handed the context before the
output map, where the term joins it. Rotary models rotate the query after ``q_norm``: timm's own function
rotates it here with the embedding that the attention was called with.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from timm.layers.attention import Attention, AttentionRope
from timm.layers.pos_embed_sincos import apply_rot_embed_cat
from timm.models.eva import EvaAttention
from timm.models.vision_transformer_relpos import RelPosAttention
from torch import Tensor, nn

from zeroinit.prompts import LayerPrompts, State, Switch
from zeroinit.seams import Projection, Seam, Site, UnsupportedHostError, remove_hooks
from zeroinit.tree import children, hooks, in_backward, named, ours

REACHABLE = (Attention, AttentionRope, EvaAttention, RelPosAttention)
SUPPORTED = (
    "supported are timm models built of its Attention, AttentionRope, EvaAttention or RelPosAttention: ViT, DeiT, "
    "DINOv2, DINOv3, EVA, SigLIP, FlexiViT, NaFlexViT and their like"
)


@dataclass(eq=False)
class Tap:
    """What the hooks of one attention module pass to each other during a forward pass.

    It hangs on the query norm, the context's module and the prompts, outside the module tree: hooks find it on
    the module that they are called on, so a deep copy has a tap of its own.
    """

    attention: nn.Module
    takes: tuple[str, ...]
    query: Tensor | None = None
    key: Tensor | None = None
    rope: Tensor | None = None
    mask: Tensor | None = None
    state: State | None = None

    @property
    def prompts(self) -> LayerPrompts:
        """The prompts planted in the attention module."""
        return children(self.attention)["zeroinit"]  # type: ignore[return-value]


def _tap_of(module: nn.Module) -> Tap:
    return module.__dict__["zeroinit_tap"]


def _see_rope(attention: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Before the attention runs: keep the rotary embedding and the mask that it was called with."""
    tap = _tap_of(attention)
    given = dict(zip(tap.takes, args, strict=False)) | kwargs
    tap.rope, tap.mask = given.get("rope"), given.get("attn_mask")


def _see_key(norm: nn.Module, args: tuple[Any, ...], key: Tensor) -> None:
    """After the key norm, where a prefix needs the tokens' keys: keep them."""
    del args
    tap = _tap_of(norm)
    if tap.prompts.has_keys_ahead(tap.state):
        tap.key = key


def _see_query(norm: nn.Module, args: tuple[Any, ...], query: Tensor) -> None:
    """After the query norm: keep the query."""
    del args
    _tap_of(norm).query = query


def _add_term(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    """Before the context is normalized or projected: add the term to it."""
    tap = _tap_of(module)
    attention, query, key, mask = tap.attention, tap.query, tap.key, tap.mask
    if query is None:
        raise RuntimeError("zeroinit saw no query: this attention did not call its q_norm")
    query = _rotated(query, tap).to(args[0].dtype)
    key = None if key is None else _rotated(key, tap).to(args[0].dtype)
    prefix = None if key is None else tap.prompts.keys_ahead(attention, query, tap.state)
    tap.query = tap.key = tap.rope = tap.mask = None
    if key is not None and prefix is not None:
        return (_joined(args[0], query, key, prefix, attention.scale, mask), *args[1:])  # type: ignore[arg-type]
    term = tap.prompts.term(attention, query, attention.scale, None, tap.state)  # type: ignore[arg-type]
    if term is None:
        return None
    context = args[0]
    term = term.transpose(1, 2).reshape(context.shape).to(context.dtype)
    return (context + term if torch.is_grad_enabled() else context.add_(term), *args[1:])


def _rotated(heads: Tensor, tap: Tap) -> Tensor:
    """Queries or keys of (batch, heads, tokens, head_dim) as a rotary model uses them; others as they are."""
    if tap.rope is None:
        return heads
    first: int = tap.attention.num_prefix_tokens  # type: ignore[assignment]
    half = getattr(tap.attention, "rotate_half", False)
    return torch.cat([heads[:, :, :first], apply_rot_embed_cat(heads[:, :, first:], tap.rope, half=half)], dim=2)


def _joined(
    context: Tensor, query: Tensor, key: Tensor, prefix: tuple[Tensor, Tensor], scale: float, mask: Tensor | None
) -> Tensor:
    """One softmax over prefix and tokens, out of the tokens' context: each part counts by its sum of exponentials."""
    heads = query.shape[1]
    key, ahead, value = (x.repeat_interleave(heads // x.shape[1], dim=1) for x in (key, *prefix))
    scores = query @ key.mT * scale
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    ahead = query @ ahead.mT * scale
    share = (ahead.logsumexp(-1, keepdim=True) - scores.logsumexp(-1, keepdim=True)).sigmoid()
    own = context.view(*query.transpose(1, 2).shape[:2], heads, -1).transpose(1, 2)
    joined = own + share * (ahead.softmax(-1) @ value - own)
    return joined.transpose(1, 2).reshape(context.shape).to(context.dtype)


def _carry_state(block: nn.Module, args: tuple[Any, ...]) -> None:
    """Before a block runs: its recomputation under gradient checkpointing must see the state of its own forward.

    timm checkpoints a block with its hooks, and recomputes it, in the backward pass, from the tensor that it was
    called with, or, if reentrant, from a detached one: the state rides on the storage, which both share.
    """
    taps = [_tap_of(m) for m in block.modules() if "zeroinit" in children(m) and "zeroinit_tap" in m.__dict__]
    state = None if torch.compiler.is_compiling() else _carried(block, args[0], taps[0].prompts.switch)
    for tap in taps:
        tap.state = state


def _carried(block: nn.Module, tokens: Tensor | tuple[Tensor, ...], switch: Switch) -> State | None:
    """The state of the forward pass that these tokens belong to; None: the current one."""
    if isinstance(tokens, tuple):  # patches, and class tokens apart, between the stages of a PiT
        tokens = tokens[0]
    backward = in_backward()
    if not (torch.is_grad_enabled() or block.training or backward):
        return None
    storage: Any = tokens.untyped_storage()
    if not backward:
        storage.zeroinit_state = switch.state
    return getattr(storage, "zeroinit_state", None)


class ModelSeam(Seam):
    """The seam of one timm model."""

    @property
    def host_type(self) -> str:
        """The class of the model."""
        return f"timm {type(self.model).__name__}"

    def sites(self) -> list[Site]:
        """See ``Seam.sites``."""
        found = [(name, module) for name, module in named(self.model) if _reachable(module)]
        if not found:
            raise UnsupportedHostError(f"{type(self.model).__name__} has no attention known here; {SUPPORTED}")
        return [self._site(name, module) for name, module in found]

    def head_name(self) -> str | None:
        """The path of what ``get_classifier()`` returns.

        Raises:
            UnsupportedHostError: if there are several classifiers.
        """
        model: Any = self.model
        head: Any = model.get_classifier() if hasattr(model, "get_classifier") else None
        if any(isinstance(head, kind) for kind in (tuple, list, nn.ModuleList)):
            raise UnsupportedHostError(f"{type(self.model).__name__} has {len(head)} classifiers, one is supported")
        if not isinstance(head, nn.Module) or not any(True for _ in head.parameters()):
            return None
        return next(name for name, module in named(self.model) if module is head)

    def refuse_prefix(self) -> None:
        """See ``Seam.refuse_prefix``."""
        if any(_runs(site.module, RelPosAttention) for site in self.sites()):
            raise UnsupportedHostError("RelPosAttention adds a bias by place to its scores: a prefix has no place")

    def open(self) -> None:
        """See ``Seam.open``."""
        for name, module in named(self.model):
            if not isinstance(ours(module), LayerPrompts):
                continue
            parts = children(module)
            context = parts.get("norm") or parts["proj"]
            hooked: list[tuple[Any, Callable[..., Any]]] = [
                (context, _add_term),
                (self._block(name), _carry_state),
            ]
            for part, hook in hooked:
                if hook not in hooks(part, before=True).values():
                    part.register_forward_pre_hook(hook)
            norm: Any = module.q_norm
            if _see_query not in hooks(norm, before=False).values():
                norm.register_forward_hook(_see_query)
                module.k_norm.register_forward_hook(_see_key)  # type: ignore[union-attr]
                module.register_forward_pre_hook(_see_rope, with_kwargs=True)
                tap = Tap(module, tuple(inspect.signature(module.forward).parameters))
                for part in (module, norm, module.k_norm, context):
                    part.__dict__["zeroinit_tap"] = tap  # type: ignore[index]

    def close(self) -> None:
        """See ``Seam.close``."""
        remove_hooks(self.model, (_add_term, _carry_state, _see_key, _see_query, _see_rope))
        for module in self.model.modules():
            module.__dict__.pop("zeroinit_tap", None)

    def _site(self, name: str, module: Any) -> Site:
        heads, head_dim = module.num_heads, module.head_dim
        norm = "k_norm" if isinstance(getattr(module, "k_norm", None), nn.Module) else None
        if getattr(module, "qkv", None) is not None:
            biases = ("k_bias", "v_bias") if getattr(module, "k_bias", None) is not None else None
            projection = Projection("qkv", "qkv", heads, head_dim, "stacked", norm, biases=biases)
            return Site(name, module, self._block(name), module.qkv.in_features, heads, "qkv", projection)
        kv_heads = getattr(module, "num_kv_heads", heads)
        projection = Projection("k_proj", "v_proj", kv_heads, head_dim, "separate", norm)
        return Site(name, module, self._block(name), module.k_proj.in_features, heads, "q_proj", projection)

    def _block(self, name: str) -> nn.Module:
        """The element of a list of blocks that holds the attention of this path, out of any checkpoint wrapper."""
        chain = self.chain(name)
        lists = (nn.Sequential, nn.ModuleList)
        block = next((b for a, b in pairwise(chain) if isinstance(a, lists)), chain[-1])
        return children(block).get("_checkpoint_wrapped_module") or block


def _reachable(module: nn.Module) -> bool:
    """Whether a module's forward is one that the hooks were written for: a subclass may do something else."""
    return any(_runs(module, cls) for cls in REACHABLE)


def _runs(module: nn.Module, cls: Any) -> bool:
    return type(module).forward is cls.forward
