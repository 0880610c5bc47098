"""The speed report measures what it says: every variant, next to its floor, with an interval."""

import torch
from typer.testing import CliRunner

from tasks.bench import speed

TINY = speed.Setting(
    hidden=32,
    layers=3,
    adapted=2,
    heads=4,
    feed_forward=48,
    vocabulary=50,
    sequence=16,
    batch=2,
    prompt=3,
    generated=3,
)


def test_every_variant_is_compared_with_its_floor():
    table = speed.compare(TINY, rounds=6, measures=list(speed.MEASURES), progress=False)
    expected = {(m, v.__name__) for m in speed.MEASURES for v in speed.VARIANTS} - {
        ("forward", "full"),
        ("generation", "full"),
    }
    assert set(zip(table.measure, table.variant, strict=True)) == expected
    assert (table.low <= table.ratio).all()
    assert (table.ratio <= table.high).all()
    assert (table.floor_ms > 0).all()
    trained = table.drop_duplicates("variant").set_index("variant").trained
    assert trained["zero_init"] == 2 * (3 * 32 + 4)
    assert trained["peft_lora_all_layers"] == 3 * 2 * 8 * (32 + 32)


def test_the_floor_is_the_frozen_model_with_gradient_from_the_first_adapted_layer():
    model = speed.floor(TINY)
    seen = []
    for layer in model.model.layers:
        layer.register_forward_hook(lambda m, a, out: seen.append(out.requires_grad))
    tokens = torch.randint(0, 50, (2, 16))
    loss = model(tokens, labels=tokens).loss
    loss.backward()
    assert seen == [False, True, True]
    assert not any(p.requires_grad for p in model.parameters())


def test_impossible_requests_are_one_sentence():
    result = CliRunner().invoke(speed.app, ["--measure", "flops"])
    assert result.exit_code == 2
    assert "step, forward, generation" in result.output
    for arguments in (["--dtype", "float31"], ["--device", "cuda:7"], ["--csv", "/proc/none/speed.csv"]):
        result = CliRunner().invoke(speed.app, arguments)
        assert (result.exit_code, arguments[0] in result.output) == (2, True)
