"""What must hold on any host: the frozen bits at zero gates, the formula at open ones, and the host back at the end.

Nothing here trusts the library's own account of a host. Keys, values, query and scale are caught on their way into
the host's attention, and the term is computed anew from them in float64.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import zeroinit
from zeroinit.seams import Site, seam_of
from zeroinit.seams import transformers as transformers_seam

LENGTH = 3
CLOSE = 2e-4
Run = Callable[[nn.Module], list[Tensor]]


class BrokenError(AssertionError):
    """A host on which something does not hold."""


def demand(holds: bool, what: str) -> None:
    """Raise ``BrokenError`` unless it holds."""
    if not holds:
        raise BrokenError(what)


def tensors(output: Any) -> list[Tensor]:
    """All floating tensors of an output, in order; caches are not outputs."""
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    if isinstance(output, dict):
        return [t for key, value in output.items() if "past_key" not in key for t in tensors(value)]
    if isinstance(output, list | tuple):
        return [t for value in output for t in tensors(value)]
    return []


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    """Equal bits (a zero's sign and NaN's payload aside)."""
    return len(first) == len(second) and all(
        a.shape == b.shape and torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0))
        for a, b in zip(first, second, strict=True)
    )


def distance(first: list[Tensor], second: list[Tensor]) -> float:
    """The largest difference, relative to the size of what differs; infinite where shapes do."""
    if [t.shape for t in first] != [t.shape for t in second]:
        return math.inf
    worst = 0.0
    for a, b in zip(first, second, strict=True):
        a, b = a.double(), b.double()
        both = a.isfinite() & b.isfinite()
        if a.numel() == 0 or not both.any():
            continue
        worst = max(worst, ((a - b)[both].abs().max() / a[both].abs().max().clamp(min=1e-3)).item())
    return worst


def open_gates(model: nn.Module, name: str = "default", by: float = 0.7) -> None:
    """Move every gate off zero, each by another amount."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith(f"zeroinit.{name}.gate"):
                noise = torch.rand(parameter.shape, generator=generator)
                parameter.copy_(by * (0.5 + noise).to(parameter))


@contextlib.contextmanager
def deterministic(seed: int = 5) -> Iterator[None]:
    """The same random numbers for every forward pass that draws any."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@dataclass
class Call:
    """One call of a host's attention: what it was handed, and what it returned as (batch, tokens, heads, head_dim)."""

    query: Tensor
    key: Tensor
    value: Tensor
    scale: float
    softcap: float | None = None
    biases: list[Tensor] = field(default_factory=list)
    sinks: Tensor | None = None
    causal: bool = False
    context: Tensor | None = None


@dataclass
class Seen:
    """What one attention module was seen doing in a forward pass."""

    calls: list[Call] = field(default_factory=list)
    key_tokens: list[Tensor] = field(default_factory=list)
    value_tokens: list[Tensor] = field(default_factory=list)


def reference_term(call: Call, site: Site, prompt: Any) -> Tensor:
    """``tanh(g) softmax(q kᵀ s) v`` in float64 for one call: (batch, heads, tokens, head_dim)."""
    key, value = (x.double() for x in site.projection(site.module, prompt.prompt[None].to(call.query.dtype)))
    groups = call.query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    scores = call.query.double() @ key.mT * call.scale
    if call.softcap is not None:
        scores = call.softcap * torch.tanh(scores / call.softcap)
    return prompt.gate.double().tanh().reshape(1, -1, 1, 1) * (scores.softmax(-1) @ value)


def reference_context(call: Call) -> Tensor:
    """The host's attention in float64: (batch, tokens, heads, head_dim)."""
    query, key, value = call.query.double(), call.key.double(), call.value.double()
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    scores = query @ key.mT * call.scale
    if call.softcap is not None:
        scores = call.softcap * torch.tanh(scores / call.softcap)
    if call.causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1 + scores.shape[-1] - scores.shape[-2])
        scores = scores.masked_fill(future, -math.inf)
    for bias in call.biases:
        scores = scores.masked_fill(~bias, -math.inf) if bias.dtype == torch.bool else scores + bias.double()
    if call.sinks is None:
        return (scores.softmax(-1) @ value).transpose(1, 2)
    sinks = call.sinks.double().reshape(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
    return (torch.cat([scores, sinks], dim=-1).softmax(-1)[..., :-1] @ value).transpose(1, 2)


@contextlib.contextmanager
def watched_maps(sites: list[Site], seen: dict[nn.Module, Seen]) -> Iterator[None]:
    """Keep the tokens that key and value maps are called with; in timm, those that the attention is called with."""
    handles = []
    for site in sites:
        record = seen[site.module]
        if type(site.module).__module__.startswith("timm."):

            def keep_both(module: nn.Module, args: tuple[Any, ...], record: Seen = record) -> None:
                del module
                record.key_tokens.append(args[0].detach())
                record.value_tokens.append(args[0].detach())

            handles.append(site.module.register_forward_pre_hook(keep_both))
            continue
        for name, kept in ((site.projection.key, record.key_tokens), (site.projection.value, record.value_tokens)):

            def keep(module: nn.Module, args: tuple[Any, ...], kept: list[Tensor] = kept) -> None:
                del module
                kept.append(args[0].detach())

            handles.append(getattr(site.module, name).register_forward_pre_hook(keep))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def unrotated(model: nn.Module) -> Iterator[None]:
    """Turn rotary embeddings off where a module of the host makes them, so that keys come as they are mapped."""

    def identity(module: nn.Module, args: Any, output: Any) -> Any:
        del module, args
        if isinstance(output, tuple) and len(output) == 2 and all(isinstance(x, Tensor) for x in output):
            return torch.ones_like(output[0]), torch.zeros_like(output[1])
        if isinstance(output, Tensor):
            return torch.ones_like(output) if output.is_complex() else torch.zeros_like(output)
        return output

    named = [m for m in model.modules() if "rotary" in type(m).__name__.lower() or "rope" in type(m).__name__.lower()]
    handles = [m.register_forward_hook(identity) for m in named if not any(True for _ in m.parameters())]
    angles = [p for name, p in model.named_parameters() if name.endswith("class_pos_emb")]  # MLCD learns some
    kept = [angle.detach().clone() for angle in angles]
    try:
        with torch.no_grad():
            for angle in angles:
                angle.zero_()
        yield
    finally:
        with torch.no_grad():
            for angle, value in zip(angles, kept, strict=True):
                angle.copy_(value)
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def watched_transformers(
    sites: list[Site], seen: dict[nn.Module, Seen], term: Callable[[Call, Site], Tensor] | None = None
) -> Iterator[None]:
    """See each call that reaches the user's attention function; with ``term``, add that to its context."""
    by_module = {site.module: site for site in sites}
    original = transformers_seam._host_attention

    def watching(module: nn.Module) -> Callable[..., Any]:
        function = original(module)

        def call(
            self: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any = None, *a: Any, **kw: Any
        ) -> Any:
            context, weights = function(self, query, key, value, attention_mask, *a, **kw)
            if module not in by_module:
                return context, weights
            scale = kw.get("scaling")
            seen_call = Call(
                query.detach(), key.detach(), value.detach(), query.shape[-1] ** -0.5 if scale is None else scale
            )
            seen_call.softcap = kw.get("softcap")
            seen_call.biases = [b.detach() for b in (attention_mask, kw.get("position_bias")) if b is not None]
            sinks = getattr(self, "sinks", None)
            seen_call.sinks = sinks.detach() if isinstance(sinks, Tensor) else None
            seen_call.context = context.detach().clone()
            seen[module].calls.append(seen_call)
            if term is not None:
                context = context + term(seen_call, by_module[module]).transpose(1, 2).to(context.dtype)
            return context, weights

        return call

    transformers_seam._host_attention = watching
    try:
        yield
    finally:
        transformers_seam._host_attention = original


@contextlib.contextmanager
def watched_timm(
    sites: list[Site], seen: dict[nn.Module, Seen], term: Callable[[Call, Site], Tensor] | None = None
) -> Iterator[None]:
    """The same for timm, whose attention calls torch's function from inside the module's forward."""
    original = F.scaled_dot_product_attention
    inside: list[Site] = []
    handles = []
    for site in sites:

        def enter(module: nn.Module, args: Any, kwargs: Any, site: Site = site) -> None:
            del module, args, kwargs
            inside.append(site)

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            del module, args, output
            inside.pop()

        handles.append(site.module.register_forward_pre_hook(enter, with_kwargs=True, prepend=True))
        handles.append(site.module.register_forward_hook(leave))

    def watching(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        context = original(query, key, value, *args, **kwargs)
        if not inside:
            return context
        scale = kwargs.get("scale")
        mask = args[0] if args else kwargs.get("attn_mask")
        call = Call(query.detach(), key.detach(), value.detach(), query.shape[-1] ** -0.5 if scale is None else scale)
        call.biases = [] if mask is None else [mask.detach()]
        call.causal = bool(kwargs.get("is_causal"))
        call.context = context.detach().transpose(1, 2)
        seen[inside[-1].module].calls.append(call)
        return context if term is None else context + term(call, inside[-1]).to(context.dtype)

    F.scaled_dot_product_attention = watching
    try:
        yield
    finally:
        F.scaled_dot_product_attention = original
        for handle in handles:
            handle.remove()


def check_formula(model: nn.Module, run: Run, eager: bool) -> str:
    """Keys, values, scale and term are the host's own; returns which keys were compared, "all" or "first"."""
    sites = [s for s in seam_of(model).sites() if "zeroinit" in s.module._modules]
    prompts = {site.module: site.module._modules["zeroinit"]._modules["default"] for site in sites}
    library = "timm" if type(seam_of(model)).__module__.endswith("timm") else "transformers"
    watched = {"timm": watched_timm, "transformers": watched_transformers}[library]

    def observe(term: Any = None, rotary: bool = True) -> tuple[dict[nn.Module, Seen], list[Tensor]]:
        seen = {site.module: Seen() for site in sites}
        still = contextlib.nullcontext() if rotary else unrotated(model)
        maps = watched_maps(sites, seen) if term is None else contextlib.nullcontext()
        with torch.no_grad(), zeroinit.disabled(model), still, maps, watched(sites, seen, term):
            return seen, run(model)

    seen, _ = observe()
    compared = "all"
    for site in sites:
        record = seen[site.module]
        demand(bool(record.calls), f"{site.name} never reached its attention function")
        demand(bool(record.key_tokens), f"{site.name} never called its key map")
        _check_values(site, record)
        if library == "transformers" and eager:
            for call in record.calls:
                far = distance([reference_context(call)], [call.context])
                if _context_is_plain(site):
                    demand(far < CLOSE, f"{site.name}: the host's attention is not softmax(q kᵀ s) v: {far:.1e}")
    bare, _ = observe(rotary=False)
    for site in sites:
        if not _keys_match(site, bare[site.module]):
            demand(_keys_match(site, seen[site.module], first=True), f"{site.name}: keys are not the host's")
            compared = "first"
    expected = observe(term=lambda call, site: reference_term(call, site, prompts[site.module]))[1]
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients):
            got = run(model)
        far = distance(expected, got)
        demand(far < CLOSE, f"the term is not the formula's (gradients {gradients}): {far:.1e}")
    return compared


def _context_is_plain(site: Site) -> bool:
    """Granite's sinks scale the context by the scores' sum: another formula, and no matter for the term."""
    return "SWA" not in type(site.module).__name__


def _check_values(site: Site, record: Seen) -> None:
    expected = _projected(site, record.value_tokens, 1)
    got = _flat([call.value for call in record.calls], expected)
    far = distance([expected], [got])
    demand(far < CLOSE, f"{site.name}: values are not the host's: {far:.1e}")


def _keys_match(site: Site, record: Seen, first: bool = False) -> bool:
    expected = _projected(site, record.key_tokens, 0)
    got = _flat([call.key for call in record.calls], expected)
    if expected.shape != got.shape:
        return False
    if first:
        expected, got = expected[:1], got[:1]
    return distance([expected], [got]) < CLOSE


def _projected(site: Site, tokens: list[Tensor], which: int) -> Tensor:
    """(all tokens in order, kv_heads, head_dim) as the library would project them."""
    with torch.no_grad():
        parts = [site.projection(site.module, t.reshape(1, -1, t.shape[-1]))[which] for t in tokens]
    return torch.cat([part[0].transpose(0, 1) for part in parts])


def _flat(caught: list[Tensor], like: Tensor) -> Tensor:
    """(all tokens in order, kv_heads, head_dim) as the host did; heads that the host has repeated are merged again."""
    flat = torch.cat([x.transpose(1, 2).flatten(0, 1) for x in caught])
    repeats = flat.shape[1] // like.shape[1]
    if repeats > 1 and torch.equal(flat[:, ::repeats].repeat_interleave(repeats, dim=1), flat):
        flat = flat[:, ::repeats]
    return flat


def check_gradients(model: nn.Module, run: Run) -> None:
    """Every gate has a gradient at step 0, and every prompt at step 1."""
    gates = {k: p for k, p in zeroinit.trainable(model).items() if k.endswith(".gate")}
    prompts = {k: p for k, p in zeroinit.trainable(model).items() if k.endswith(".prompt")}
    frozen = [k for k, p in model.named_parameters() if p.requires_grad and k not in zeroinit.trainable(model)]
    demand(not frozen, f"not frozen: {frozen[:3]}")
    for step, wanted in enumerate((gates, prompts)):
        model.zero_grad()
        outputs = [o for o in run(model) if o.requires_grad]
        demand(bool(outputs), "no output depends on the prompts")
        with deterministic():
            loss = torch.stack([(torch.randn_like(o) * o.nan_to_num(0.0, 0.0, 0.0)).sum() for o in outputs]).sum()
        loss.backward()
        dead = [k for k, p in wanted.items() if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()]
        demand(not dead, f"no gradient at step {step} in {dead[:3]}")
        open_gates(model)
    model.zero_grad()
    zeroinit.detach(model)
    zeroinit.attach(model, zeroinit.ZeroInit(length=LENGTH))


def check_rows(model: nn.Module, run: Run) -> bool:
    """With one adapter for the first row and none for the second, each row is as it is with its own for all."""
    host, adapted = _rows_with(model, run, None), _rows_with(model, run, "default")
    if any(o.dim() == 0 or o.shape[0] != 2 for o in host):
        return False
    mixed = _rows_with(model, run, ["default", None])
    demand(distance([o[1:] for o in host], [o[1:] for o in mixed]) < CLOSE, "a row without an adapter has another's")
    demand(distance([o[:1] for o in adapted], [o[:1] for o in mixed]) < CLOSE, "a row has not its own adapter")
    return True


def _rows_with(model: nn.Module, run: Run, names: Any) -> list[Tensor]:
    with torch.no_grad():
        if names is None:
            with zeroinit.disabled(model):
                return run(model)
        zeroinit.activate(model, names)
        try:
            return run(model)
        finally:
            zeroinit.activate(model, "default")
