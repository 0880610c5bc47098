"""A prefix is plain keys and values before the tokens' own, in one softmax: in float64, from the parts."""

import pytest
import torch
from torch import Tensor, nn

import zeroinit
from tests.zeroinit.opened import (
    DECODERS,
    batch_for,
    gradients,
    llama,
    logits,
    opened,
    qwen3,
    roberta,
    tokens,
    vit,
)
from zeroinit.methods.prefix import PrefixTuning
from zeroinit.prompts import LayerPrompts

LENGTH = 4
WAYS = {
    "keys and values": PrefixTuning(length=LENGTH, layers=2),
    "prompts": PrefixTuning(length=LENGTH, projected=True),
}


def oracle(
    query: Tensor, key: Tensor, value: Tensor, prefix: tuple[Tensor, Tensor], hidden: Tensor | None, scale: float
) -> Tensor:
    """softmax([q Kᵀ, q kᵀ] s) [V; v], one plain concatenation; (batch, heads, tokens, head_dim)."""
    heads = query.shape[1]
    key, value = (
        torch.cat([p.expand(len(x), -1, -1, -1), x], dim=2) for p, x in zip(prefix, (key, value), strict=True)
    )
    key, value = (x.repeat_interleave(heads // x.shape[1], dim=1) for x in (key, value))
    scores = query @ key.mT * scale
    if hidden is not None:
        scores[..., prefix[0].shape[2] :].masked_fill_(hidden, -torch.inf)
    return scores.softmax(-1) @ value


def prefix_of(module: nn.Module) -> tuple[Tensor, Tensor]:
    """From the parameters alone; prompts through the module's own maps."""
    planted = module.zeroinit.default
    if hasattr(planted, "prompt"):
        return module.zeroinit.projection(module, planted.prompt[None])
    return planted.key[None], planted.value[None]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("host", [llama, qwen3, roberta])
def test_one_softmax_in_transformers(monkeypatch, host, attention, way):
    """The host's own attention function is handed longer keys, and gives what the oracle gives from its inputs."""
    options = {"attention": attention} if host is not roberta else {}
    model = opened(host, WAYS[way], **options)
    if attention == "sdpa":  # eager attention computes its softmax in float32, whatever the host's dtype
        model = model.double()
    if host is roberta:
        model.set_attn_implementation(attention)
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[0, :3] = 0
    seen = []
    from zeroinit.seams import transformers as seam

    real = seam.attention

    def spy(module, query, key, value, attention_mask, *args, **kwargs):
        context, weights = real(module, query, key, value, attention_mask, *args, **kwargs)
        if isinstance(module._modules.get("zeroinit"), LayerPrompts):
            hidden = (mask == 0)[:, None, None]
            if host is not roberta:
                hidden = hidden | torch.ones(9, 9, dtype=torch.bool).triu(1)
            expected = oracle(query, key, value, prefix_of(module), hidden, kwargs["scaling"])
            real_rows = mask.bool()
            seen.append((context[real_rows], expected.transpose(1, 2)[real_rows]))
            assert weights is None or weights.shape[-1] == 9
        return context, weights

    monkeypatch.setitem(seam.ALL_ATTENTION_FUNCTIONS._global_mapping, f"zeroinit_{attention}", spy)
    with torch.no_grad():
        model(tokens(), attention_mask=mask)
    assert len(seen) == (2 if way == "keys and values" else 3)
    for found, expected in seen:
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 if attention == "sdpa" else 1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_one_softmax_in_timm(way):
    model = opened(vit, WAYS[way]).double()
    parts: dict[str, Tensor] = {}
    attention = model.blocks[2].attn
    for name in ("q_norm", "k_norm", "qkv", "proj"):

        def keep(module: nn.Module, args: object, out: Tensor, name: str = name) -> None:
            parts.setdefault(name, out)  # prompts pass some of them too, after the tokens

        attention.get_submodule(name).register_forward_hook(keep)
    with torch.no_grad():
        model(batch_for(model).double())
        value = parts["qkv"].unflatten(-1, (3, 4, 8)).permute(2, 0, 3, 1, 4)[2]
        context = oracle(parts["q_norm"], parts["k_norm"], value, prefix_of(attention), None, attention.scale)
        expected = attention.proj(context.transpose(1, 2).flatten(2))
    torch.testing.assert_close(parts["proj"], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("host", [llama, roberta])
def test_padding_is_not_seen(host, padding):
    model = opened(host, WAYS["keys and values"])
    short, mask = tokens(1, 6), torch.ones(1, 9, dtype=torch.long)
    place = slice(3, None) if padding == "left" else slice(None, 6)
    padded = torch.full((1, 9), 5)
    padded[:, place] = short
    mask[:] = 0
    mask[:, place] = 1
    if host is roberta and padding == "left":
        return  # learned positions are counted from the first column: the host itself differs
    with torch.no_grad():
        alone, within = logits(model, short), logits(model, padded, attention_mask=mask)
    within = within if host is roberta else within[:, place]
    torch.testing.assert_close(within, alone, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("host", DECODERS)
def test_cached_steps_are_the_whole_pass(host):
    model = opened(DECODERS[host], WAYS["keys and values"])
    out = model.generate(
        tokens(2, 5), max_new_tokens=6, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
    with torch.no_grad():
        whole = logits(model, out.sequences)[:, 4:-1]
    torch.testing.assert_close(torch.stack(out.logits, dim=1), whole, atol=2e-5, rtol=1e-4)
    assert not torch.equal(whole, DECODERS[host]().eval()(out.sequences).logits[:, 4:-1])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("host", [llama, roberta, vit])
def test_every_part_learns_and_checkpointing_changes_nothing(host, way):
    found = []
    for checkpoint in (False, True):
        model = opened(host, WAYS[way]).train()
        if checkpoint:
            enable = getattr(model, "activation_checkpointing_enable", None) or model.set_grad_checkpointing
            enable()
        logits(model, batch_for(model)).pow(2).mean().backward()
        found.append(gradients(model))
    assert all(gradient.abs().max() > 0 for gradient in found[0].values())
    torch.testing.assert_close(found[1], found[0])


def test_what_a_prefix_cannot_join_is_refused():
    import timm

    model = timm.create_model("vit_relpos_small_patch16_224", img_size=32, num_classes=3)
    with pytest.raises(zeroinit.UnsupportedHostError, match="bias by place"):
        zeroinit.attach(model, PrefixTuning())
    flex = llama("flex_attention")
    zeroinit.attach(flex, PrefixTuning(length=2))
    eager = torch.compiler.set_stance("force_eager")  # compiling its mask takes long, and is not what is asked
    with eager, pytest.raises(zeroinit.UnsupportedHostError, match="set attn_implementation to sdpa"):
        flex(tokens())
