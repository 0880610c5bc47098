"""Each architecture is the frozen model to the bit at zero gates and the formula at open ones, or it is refused."""

import warnings
from collections import Counter

import pytest

import zeroinit
from tests.zeroinit import hosts, sweep

# Of every kind one that is built fast; the sweep makes all rows.
TRANSFORMERS = """
    albert bert clip_vision_model dinov2 distilbert electra falcon_h1 gemma2 gemma3_text gpt2 gpt_bigcode gpt_neox
    gpt_oss llama llama4_text mistral modernbert olmo2 opt persimmon phi3 qwen3 qwen3_next roberta siglip_vision_model
    stablelm swin vit
"""
VARIANTS = (
    "falcon_h1 (key_multiplier=0.5)",
    "gemma4_text (attention_k_eq_v=True)",
    "gpt_bigcode (multi_query=False)",
    "mimo_v2_flash (attention_value_scale=0.5)",
    "olmo (clip_qkv=0.5)",
)
TIMM = """
    eva02_tiny_patch14_224 flexivit_small naflexvit_base_patch16_gap pit_xs_224 qwen3_vit_88m
    vit_pe_core_tiny_patch16_384
    vit_relpos_small_patch16_224 vit_small_patch16_dinov3 vit_small_patch14_reg4_dinov2 vit_srelpos_small_patch16_224
    vit_tiny_patch16_224 vit_base_patch16_rope_mixed_224 vit_base_patch16_siglip_224
"""
# What would be silently wrong, by the words that tell why it is not done.
REFUSED = {
    "t5": "attach to the one you mean: .encoder, .decoder",
    "clip": "attach to the one you mean: .text_model, .vision_model",
    "deepseek_v3": "no key and value maps known here",
    "diffllama": "lambda_k1",
    "doge": "prepare_dynamic_mask",
    "git": "attach to .git.image_encoder",
    "gpt2 (reorder_and_upcast_attn=True)": "reorder_and_upcast_attn",
    "inkling_text": "k_sconv",
    "openai_privacy_filter": "multiplies its keys",
    "stablelm (qk_layernorm=True)": "normalizes each head",
}
# Rows of the table that are made anew each time, beside those above.
SAMPLE = (("timm", "resnet18"), ("timm", "swin_tiny_patch4_window7_224"), ("transformers", "bloom"))


def verify(library: str, architecture: str, status: str) -> sweep.Row:
    """Make the row of an architecture, which must have this status and agree with the table."""
    rows = sweep.rows_of(library, architecture)
    table = sweep.read_table()
    for row in rows:
        assert row.status == status or row is not rows[0], row
        assert row.status != "BROKEN", row
        assert row.cells() == table.get((library, row.architecture)), "run python -m tests.zeroinit.sweep"
    return rows[0]


@pytest.mark.parametrize("architecture", [*TRANSFORMERS.split(), *VARIANTS])
def test_transformers_architecture_is_exact(architecture: str) -> None:
    row = verify("transformers", architecture, "exact")
    assert {"fp32/eager", "bf16/eager"} <= set(row.bits.split())


@pytest.mark.parametrize("architecture", TIMM.split())
def test_timm_architecture_is_exact(architecture: str) -> None:
    row = verify("timm", architecture, "exact")
    assert row.bits == "fp32/sdpa fp32/eager bf16/sdpa bf16/eager"


@pytest.mark.parametrize("architecture", REFUSED)
def test_what_would_be_wrong_is_refused_with_the_reason(architecture: str) -> None:
    with pytest.raises(zeroinit.UnsupportedHostError) as refusal:
        zeroinit.attach(hosts.build(architecture), zeroinit.ZeroInit())
    assert REFUSED[architecture] in str(refusal.value)


@pytest.mark.parametrize(("library", "architecture"), SAMPLE)
def test_out_of_reach_is_refused(library: str, architecture: str) -> None:
    verify(library, architecture, "refused")


def test_refusal_changes_nothing() -> None:
    model = hosts.build("deepseek_v3")
    keys, flags = list(model.state_dict()), [p.requires_grad for p in model.parameters()]
    with pytest.raises(zeroinit.UnsupportedHostError):
        zeroinit.attach(model, zeroinit.ZeroInit())
    assert list(model.state_dict()) == keys
    assert [p.requires_grad for p in model.parameters()] == flags


def test_table_says_exact_or_refused_and_of_what_it_cannot_say_why() -> None:
    table = sweep.read_table()
    assert {row["status"] for row in table.values()} <= {"exact", "refused", "not built"}
    assert all(row["reason"] for row in table.values() if row["status"] != "exact")
    exact = Counter(library for (library, _), row in table.items() if row["status"] == "exact")
    assert exact["transformers"] >= 60
    assert exact["timm"] >= 40
    for row in table.values():
        if row["status"] == "exact":
            assert row["bits"]
            assert row["keys"] in ("all", "first")
            assert row["gradients"] == row["restored"] == "yes"


def test_architectures_that_the_table_does_not_know_yet() -> None:
    # A library that is newer than the table brings some: they too are exact or refused.
    table = sweep.read_table()
    rows = [row for pair in sweep.everything() if pair not in table for row in sweep.rows_of(*pair)]
    assert all(row.status in ("exact", "refused", "not built") for row in rows), rows
    if rows:
        warnings.warn(f"run python -m tests.zeroinit.sweep: {[row.architecture for row in rows]}", stacklevel=1)


@pytest.mark.slow
@pytest.mark.parametrize(("library", "architecture"), sweep.everything())
def test_row_of_the_table(library: str, architecture: str) -> None:
    for row in sweep.rows_of(library, architecture):
        assert row.status in ("exact", "refused", "not built"), row
        assert row.cells() == sweep.read_table().get((library, row.architecture)), "run python -m tests.zeroinit.sweep"
