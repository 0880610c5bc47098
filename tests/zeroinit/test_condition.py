"""Image features condition the prompts of their own rows, in forward, generate and backward, and are never stale."""

import contextlib
import copy
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import accelerate
import pytest
import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

import zeroinit
from tests.zeroinit.opened import HOSTS, batch_for, gradients, images, llama, logits, opened, roberta, tokens, vit

DEPTHS, WIDTH = 2, 5
SHAPES = {
    "linear": zeroinit.ImageCondition(DEPTHS, WIDTH),
    "bottleneck": zeroinit.ImageCondition(DEPTHS, WIDTH, bottleneck=4),
}
ROOT = Path(__file__).parents[2]


def method(shape: str = "linear", **fields: object) -> zeroinit.ZeroInit:
    return zeroinit.ZeroInit(length=3, layers=2, condition=SHAPES[shape], **fields)


def features_for(rows: int = 2, seed: int = 5) -> Tensor:
    return torch.randn(rows, DEPTHS, WIDTH, generator=torch.Generator().manual_seed(seed))


def different(a: Tensor, b: Tensor) -> bool:
    return not torch.allclose(a, b, atol=1e-3)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def conditioned_logits(
    model: nn.Module, inputs: Tensor, features: Tensor, mask: Tensor | Sequence[bool] | None = None
) -> Tensor:
    with zeroinit.conditioned(model, features, mask):
        return logits(model, inputs)


@pytest.fixture(params=["cached", "eval", "train"])
def mode(request: pytest.FixtureRequest) -> object:
    """The three ways that prompts take: cached keys, gradients in eval mode, training."""

    def enter(model: nn.Module) -> nn.Module:
        torch.set_grad_enabled(request.param != "cached")
        return model.train(request.param == "train")

    yield enter
    torch.set_grad_enabled(True)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("host", HOSTS)
def test_context_and_argument_agree_row_by_row(host: str, shape: str, mode: Callable[..., nn.Module]) -> None:
    model = mode(opened(HOSTS[host], method(shape)))
    inputs, features = batch_for(model), features_for()
    found = conditioned_logits(model, inputs, features)
    close(logits(model, inputs, prompt_condition=features), found)
    assert different(found, logits(model, inputs))
    for row in range(2):
        close(conditioned_logits(model, inputs[row : row + 1], features[row : row + 1])[0], found[row])


@pytest.mark.parametrize("host", HOSTS)
def test_projection_is_added_to_every_prompt(host: str) -> None:
    """What a condition does is what the same numbers in the prompts do."""
    model = opened(HOSTS[host], method())
    inputs, features = batch_for(model, rows=1), features_for(1)
    with torch.no_grad():
        found = conditioned_logits(model, inputs, features)
        projector = model.zeroinit.projectors["default"].map
        added = features.flatten(1) @ projector.weight.T + projector.bias
        for name, parameter in zeroinit.trainable(model).items():
            if name.endswith(".prompt"):
                parameter += added
        close(logits(model, inputs), found)


@pytest.mark.parametrize("host", HOSTS)
def test_text_only_rows_are_left_unconditioned(host: str, mode: Callable[..., nn.Module]) -> None:
    model = mode(opened(HOSTS[host], method("bottleneck")))
    inputs, features = batch_for(model, rows=3), features_for(3)
    features[1] = float("nan")  # what stands in for an absent picture must not matter
    found = conditioned_logits(model, inputs, features, mask=[True, False, True])
    plain = logits(model, inputs)
    close(found[1], plain[1])
    assert different(found[0], plain[0])
    assert different(found[2], plain[2])
    close(conditioned_logits(model, inputs, features, torch.zeros(3)), plain)


@pytest.mark.parametrize("host", HOSTS)
def test_the_argument_takes_a_pair_of_features_and_mask(host: str, mode: Callable[..., nn.Module]) -> None:
    model = mode(opened(HOSTS[host], method("bottleneck")))
    inputs, features, mask = batch_for(model, rows=3), features_for(3), torch.tensor([True, False, True])
    found = conditioned_logits(model, inputs, features, mask)
    for pair in ((features, mask), [features, mask]):  # moving a batch to a device may make a list of a tuple
        close(logits(model, inputs, prompt_condition=pair), found)
    close(logits(model, inputs, prompt_condition=(features, mask))[1], logits(model, inputs)[1])
    for wrong in ((features,), (features, mask, mask)):
        with pytest.raises(ValueError, match="a pair of features and mask"):
            logits(model, inputs, prompt_condition=wrong)


@pytest.mark.parametrize("strategy", [{}, {"num_beams": 3}, {"num_beams": 4, "num_return_sequences": 2}])
def test_generate_takes_a_pair_and_leaves_text_only_rows_alone(strategy: dict[str, int]) -> None:
    model = opened(llama, method())
    inputs, features, mask = tokens(2, 5), features_for(), torch.tensor([True, False])
    options = {"max_new_tokens": 6, "pad_token_id": 0, **strategy}
    given = model.generate(inputs, prompt_condition=(features, mask), **options)
    with zeroinit.conditioned(model, features, mask):
        assert torch.equal(model.generate(inputs, **options), given)
    rows = len(given) // 2
    with zeroinit.conditioned(model, features[:1]):
        assert torch.equal(model.generate(inputs[:1], **options), given[:rows])
    assert torch.equal(model.generate(inputs[1:], **options), given[rows:])


def test_a_pair_passes_trainer_and_accelerate(tmp_path: Path) -> None:
    """Trainer keeps the column, and moves and gathers a pair as it does any tensor."""
    features, mask, inputs = features_for(4), torch.tensor([True, False, True, True]), tokens(4)
    rows = [
        {"input_ids": inputs[row], "labels": inputs[row], "prompt_condition": (features[row], mask[row]), "comment": 0}
        for row in range(4)
    ]

    def collate(batch: list[dict[str, object]]) -> dict[str, object]:
        assert "comment" not in batch[0]
        shown = zip(*(row.pop("prompt_condition") for row in batch), strict=True)
        batched = {key: torch.stack([row[key] for row in batch]) for key in batch[0]}
        return {**batched, "prompt_condition": tuple(torch.stack(part) for part in shown)}

    model = opened(llama, method())
    before = {name: p.detach().clone() for name, p in zeroinit.trainable(model).items()}
    options = TrainingArguments(
        output_dir=str(tmp_path),
        use_cpu=True,
        max_steps=2,
        per_device_train_batch_size=2,
        report_to=[],
        save_strategy="no",
    )
    trainer = Trainer(model, options, train_dataset=list(rows), eval_dataset=list(rows), data_collator=collate)
    predicted = torch.from_numpy(trainer.predict(copy.deepcopy(rows)).predictions)
    with torch.no_grad():
        close(predicted, conditioned_logits(model.eval(), inputs, features, mask))
    trainer.train()
    assert all(not torch.equal(p, before[name]) for name, p in zeroinit.trainable(model).items())
    moved = send_to_device({"prompt_condition": (features, mask)}, "meta")["prompt_condition"]
    assert [part.device.type for part in moved] == ["meta", "meta"]


@pytest.mark.parametrize("host", HOSTS)
def test_gradients_reach_the_projector(host: str) -> None:
    model = opened(HOSTS[host], method("bottleneck")).train()
    features = features_for().requires_grad_()
    conditioned_logits(model, batch_for(model), features, mask=[True, False]).pow(2).mean().backward()
    found = gradients(model)
    assert sum("projectors" in name for name in found) == 4
    assert all(gradient.abs().max() > 0 for gradient in found.values())
    assert features.grad is not None
    assert features.grad[0].abs().max() > 0
    assert features.grad[1].abs().max() == 0


@pytest.mark.parametrize(
    "strategy",
    [{}, {"num_beams": 3}, {"num_beams": 4, "num_return_sequences": 2}, {"do_sample": True, "num_return_sequences": 3}],
)
@pytest.mark.parametrize("way", ["context", "argument"])
def test_generate_conditions_each_row_on_its_own(strategy: dict[str, object], way: str) -> None:
    """Row i of the features serves the beams and return sequences of row i, with and without a cache."""
    model = opened(llama, method())
    inputs, features = tokens(2, 5), features_for()

    def generate(rows: slice, **options: object) -> Tensor:
        torch.manual_seed(3)
        options = {**strategy, "max_new_tokens": 6, "attention_mask": torch.ones_like(inputs[rows]), **options}
        if way == "argument":
            return model.generate(inputs[rows], prompt_condition=features[rows], **options)
        with zeroinit.conditioned(model, features[rows]):
            return model.generate(inputs[rows], **options)

    together = generate(slice(None))
    assert torch.equal(generate(slice(None), use_cache=False), together)
    torch.manual_seed(3)
    assert not torch.equal(model.generate(inputs, max_new_tokens=6, **strategy), together)
    if "do_sample" not in strategy:  # drawing for one row draws other numbers
        assert torch.equal(torch.cat([generate(slice(0, 1)), generate(slice(1, 2))]), together)


@pytest.mark.parametrize("rows", [2, 4, 5])
def test_wrong_number_of_rows_is_an_error(rows: int, mode: Callable[..., nn.Module]) -> None:
    model = mode(opened(llama, method()))
    with pytest.raises(ValueError, match=f"3 rows is no multiple of the {rows} conditioned rows"):
        conditioned_logits(model, tokens(3), features_for(rows))


@pytest.mark.parametrize(
    ("features", "mask", "said"),
    [
        (torch.zeros(2, DEPTHS * WIDTH), None, "depths, width"),
        (torch.zeros(2, DEPTHS, WIDTH + 1), None, "takes features of"),
        (torch.zeros(2, DEPTHS + 1, WIDTH), None, "takes features of"),
        (torch.zeros(2, DEPTHS, WIDTH), [True], "mask"),
        (torch.zeros(2, DEPTHS, WIDTH), [[True, False]], "mask"),
    ],
)
def test_wrong_shapes_are_errors(features: Tensor, mask: Sequence[bool] | None, said: str) -> None:
    model = opened(llama, method())
    with pytest.raises(ValueError, match=said):
        conditioned_logits(model, tokens(), features, mask)
    logits(model, tokens())


def test_an_adapter_without_projection_takes_no_condition() -> None:
    model = opened(llama)
    with pytest.raises(ValueError, match="takes no condition"):
        conditioned_logits(model, tokens(), features_for())
    with pytest.raises(ValueError, match="came down unused"):
        model(tokens(), prompt_condition=features_for())
    with pytest.raises(TypeError, match="prompt_condition"):
        opened(vit)(images(), prompt_condition=features_for())
    zeroinit.attach(model, method(), "conditioned")
    zeroinit.activate(model, ["default", "conditioned"])
    with pytest.raises(ValueError, match="'default' takes no condition"):
        conditioned_logits(model, tokens(), features_for())
    with pytest.raises(ValueError, match="'default' takes no condition"), zeroinit.conditioned(model, features_for()):
        zeroinit.activate(model, "default")


def test_the_host_alone_needs_no_condition() -> None:
    """So a reference pass, as preference losses take one, may be given the same batch."""
    model, inputs = opened(llama, method()), tokens()
    with zeroinit.disabled(model):
        close(logits(model, inputs, prompt_condition=features_for()), logits(model, inputs))


def test_a_condition_that_nothing_takes_is_refused() -> None:
    """accelerate's hooks give a model a forward of its own, which hides the class's."""
    model = accelerate.dispatch_model(llama().eval(), {"": "cpu"}, force_hooks=True)
    zeroinit.attach(model, method())
    with pytest.raises(ValueError, match="came down unused"):
        model(tokens(), prompt_condition=features_for())
    with zeroinit.conditioned(model, features_for()):
        model(tokens())


def test_contexts_that_overlap_leave_nothing_behind() -> None:
    model, inputs = opened(llama, method()), tokens()
    expected = logits(model, inputs)
    for make in (lambda: zeroinit.conditioned(model, features_for()), lambda: zeroinit.disabled(model)):
        one, other = make(), make()
        one.__enter__()
        other.__enter__()
        one.__exit__(None, None, None)
        other.__exit__(None, None, None)
        assert torch.equal(logits(model, inputs), expected)


@pytest.mark.parametrize("host", HOSTS)
@torch.no_grad()
def test_a_cached_condition_is_never_stale(host: str) -> None:
    model = opened(HOSTS[host], method())
    inputs, features = batch_for(model), features_for()
    if host != "vit":  # a pass over one token may be served from the cache of prompts' keys
        inputs = inputs[:, :1]
    plain = logits(model, inputs)
    fresh = copy.deepcopy(model)

    def expected(values: Tensor, mask: list[bool] | None = None) -> Tensor:
        return conditioned_logits(fresh.train(), inputs, values.clone(), mask)

    first, second = expected(features), expected(features_for(seed=6))
    with zeroinit.conditioned(model, features):
        close(logits(model, inputs), first)
        features.copy_(features_for(seed=6))
        close(logits(model, inputs), second)
        with zeroinit.conditioned(model, features_for()):
            close(logits(model, inputs), first)
        close(logits(model, inputs), second)
        projector = model.zeroinit.projectors["default"].map
        projector.bias += 1
        assert different(logits(model, inputs), second)
        projector.bias -= 1
    close(logits(model, inputs), plain)
    close(conditioned_logits(model, inputs, features, [True, False]), expected(features, [True, False]))
    close(conditioned_logits(model, inputs, features, [False, True]), expected(features, [False, True]))
    with pytest.raises(RuntimeError, match="stop"), zeroinit.conditioned(model, features):
        raise RuntimeError("stop")
    close(logits(model, inputs), plain)


@pytest.mark.parametrize("way", ["context", "argument"])
def test_one_generate_projects_its_condition_once(way: str) -> None:
    """A pass over the prompt, and one for the steps that follow; not one for each of them."""
    model, features = opened(llama, method()), features_for()
    calls = []
    model.zeroinit.projectors["default"].register_forward_hook(lambda *_: calls.append(None))
    inside = zeroinit.conditioned(model, features) if way == "context" else contextlib.nullcontext()
    options = {} if way == "context" else {"prompt_condition": features}
    with inside:
        model.generate(tokens(), max_new_tokens=8, do_sample=False, **options)
    assert len(calls) <= 2 * 2  # two layers


def test_features_of_inference_mode_are_never_stale() -> None:
    """A frozen encoder often runs in inference mode; its tensors do not count their changes."""
    model = opened(llama, method())
    inputs = tokens(2, 1)
    with torch.inference_mode():
        features = features_for()
        with zeroinit.conditioned(model, features):
            first = logits(model, inputs)
            features.copy_(features_for(seed=6))
            second = logits(model, inputs)
    with torch.no_grad():
        close(first, conditioned_logits(model.train(), inputs, features_for()))
        close(second, conditioned_logits(model.train(), inputs, features_for(seed=6)))


@pytest.mark.parametrize("host", HOSTS)
def test_adapters_of_each_sample_take_the_condition(host: str, mode: Callable[..., nn.Module]) -> None:
    model = mode(opened(HOSTS[host], method(train_head=False), names=("a", "b")))
    inputs, features = batch_for(model, rows=3), features_for(3)
    names = ["a", None, "b"]
    zeroinit.activate(model, names)
    together = conditioned_logits(model, inputs, features, mask=[True, True, False])
    for row, name in enumerate(names):
        one = slice(row, row + 1)
        if name is None:
            with zeroinit.disabled(model):
                close(logits(model, inputs[one])[0], together[row])
            continue
        zeroinit.activate(model, name)
        close(conditioned_logits(model, inputs[one], features[one], mask=[row != 2])[0], together[row])


def test_adapters_of_each_sample_generate_under_the_condition() -> None:
    model = opened(llama, method(), names=("a", "b"))
    inputs, features = tokens(2, 5), features_for()
    options = {"max_new_tokens": 6, "num_beams": 2, "num_return_sequences": 2}
    zeroinit.activate(model, ["b", "a"])
    with zeroinit.conditioned(model, features):
        together = model.generate(inputs, **options)
    for row, name in enumerate("ba"):
        zeroinit.activate(model, name)
        with zeroinit.conditioned(model, features[row : row + 1]):
            alone = model.generate(inputs[row : row + 1], **options)
        assert torch.equal(alone, together[2 * row : 2 * row + 2])


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_a_copy_is_conditioned_alike_and_alone(host: str, way: str) -> None:
    model = opened(HOSTS[host], method())
    inputs = batch_for(model)
    # Features of an encoder that trains: a copy of the model must not hang on their graph.
    features = features_for().requires_grad_() * 1
    with torch.no_grad():
        expected = conditioned_logits(model, inputs, features)
        twin = copy.deepcopy(model) if way == "deepcopy" else pickle.loads(pickle.dumps(model))
        close(conditioned_logits(twin, inputs, features), expected)
        close(logits(twin, inputs, prompt_condition=features), expected)
        for parameter in zeroinit.trainable(twin).values():
            parameter += 1
        assert different(conditioned_logits(twin, inputs, features), expected)
        close(conditioned_logits(model, inputs, features), expected)
        zeroinit.detach(twin)
        assert type(twin) is HOSTS[host]().__class__
        close(conditioned_logits(model, inputs, features), expected)


def test_a_copy_made_under_a_condition_is_free_of_it() -> None:
    model = opened(HOSTS["llama"], method())
    inputs = batch_for(model)
    with torch.no_grad():
        plain = logits(model, inputs)
        with zeroinit.conditioned(model, features_for()):
            twin = copy.deepcopy(model)
            assert different(logits(model, inputs), plain)
        close(logits(twin, inputs), plain)
        with zeroinit.conditioned(twin, features_for()):
            assert different(logits(twin, inputs), plain)
        close(logits(twin, inputs), plain)


@pytest.mark.parametrize("hosts", [["llama"], pytest.param(HOSTS, marks=pytest.mark.slow)])
def test_saved_models_run_in_another_process(hosts: list[str], tmp_path: Path) -> None:
    """``torch.save`` of the whole model: the process that loads it has attached nothing and registered nothing."""
    saved, expected = [], []
    for host in map(HOSTS.get, hosts):
        model = opened(host, method())
        inputs, features = batch_for(model), features_for()
        saved.append((model, inputs, features))
        with torch.no_grad():
            expected.append(conditioned_logits(model, inputs, features))
    mask = torch.ones_like(tokens())
    mask[0, :3] = 0
    options = {"max_new_tokens": 4, "do_sample": False, "cache_implementation": "static"}
    written = saved[0][0].generate(tokens(), attention_mask=mask, **options)
    torch.save((saved, tokens(), mask, options, written), tmp_path / "models.pt")
    # The static cache's mask is made before the first forward pass.
    code = (
        "import sys, torch\n"
        "saved, ids, mask, options, written = torch.load(sys.argv[1] + '/models.pt', weights_only=False)\n"
        "assert torch.equal(saved[0][0].generate(ids, attention_mask=mask, **options), written)\n"
        "with torch.no_grad():\n"
        "    outputs = [model(inputs, prompt_condition=features) for model, inputs, features in saved]\n"
        "torch.save([getattr(output, 'logits', output) for output in outputs], sys.argv[1] + '/outputs.pt')\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=True, timeout=120)
    for found, wanted in zip(torch.load(tmp_path / "outputs.pt"), expected, strict=True):
        close(found, wanted)


@pytest.mark.parametrize("host", [llama, roberta, vit])
def test_the_class_is_given_back(host: Callable[..., nn.Module]) -> None:
    plain = type(host())
    model = opened(host, method())
    assert isinstance(model, plain)
    assert type(model).__name__ == plain.__name__
    zeroinit.detach(model)
    assert type(model) is plain


def test_pictures_condition_text() -> None:
    """Features of a frozen ViT, of several depths, condition a LLaMA."""
    encoder = vit().eval()
    with torch.no_grad():
        depths = encoder.forward_intermediates(images(), output_fmt="NLC", intermediates_only=True)
    features = torch.stack([depth.mean(1) for depth in depths], dim=1)
    shape = zeroinit.ImageCondition(depths=3, width=32)
    model = opened(llama, zeroinit.ZeroInit(length=3, condition=shape))
    with torch.no_grad():
        found = conditioned_logits(model, tokens(), features)
        assert different(found, conditioned_logits(model, tokens(), features.flip(0)))
