"""Trainer and accelerate train, evaluate, save, die and resume adapted models; evaluation sees every change."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate
import datasets
import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainingArguments

import zeroinit
from tests.zeroinit.opened import (
    HOSTS,
    batch_for,
    gradients,
    llama,
    llama_classifier,
    logits,
    open_gates,
    opened,
    roberta,
)
from tests.zeroinit.opened import tokens as tokens_of

ROOT = Path(__file__).parents[2]
CONDITION = zeroinit.ZeroInit(length=3, layers=2, condition=zeroinit.ImageCondition(2, 5))
ROWS, BATCH, STEPS, SAVED = 16, 4, 8, 3


def arguments(folder: Path, **options: object) -> TrainingArguments:
    defaults = {
        "per_device_train_batch_size": BATCH,
        "per_device_eval_batch_size": BATCH,
        "max_steps": STEPS,
        "learning_rate": 0.01,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
    }
    return TrainingArguments(str(folder), **{**defaults, **options})


def rows_for(host: Callable[..., nn.Module], **columns: Tensor) -> list[dict[str, Any]]:
    """Sequences to continue, or to classify by their first token."""
    sequences = tokens_of(ROWS)
    labels = sequences if host is llama else sequences[:, 0] % 3
    return [
        {"input_ids": sequence, "labels": label, **{name: column[row] for name, column in columns.items()}}
        for row, (sequence, label) in enumerate(zip(sequences, labels, strict=True))
    ]


Trained = tuple[dict[str, Tensor], list[float]]


class Slowly(TrainerCallback):
    """Leaves time to be killed between steps."""

    def on_step_end(self, *args: object, **kwargs: object) -> None:
        time.sleep(0.5)


def train(
    folder: Path, kind: str, *, resume: bool = False, slowly: bool = False
) -> tuple[dict[str, Tensor], list[float]]:
    """Train with a checkpoint on the way; what was trained, and the losses of the steps since the checkpoint."""
    host = HOSTS[kind]
    options = arguments(folder, save_strategy="steps", save_steps=SAVED, save_total_limit=1)
    callbacks = [Slowly()] if slowly else []
    trainer = Trainer(opened(host), options, train_dataset=rows_for(host), callbacks=callbacks)
    trainer.train(resume_from_checkpoint=resume)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry and entry["step"] > SAVED]
    return {name: p.detach().clone() for name, p in zeroinit.trainable(trainer.model).items()}, losses


def kill_after_checkpoint(folder: Path, kind: str) -> None:
    """Train in another process and kill it, with no warning, once its first checkpoint is complete."""
    code = (
        "import sys; from pathlib import Path; from tests.zeroinit.test_trainer import train\n"
        "train(Path(sys.argv[1]), sys.argv[2], slowly=True)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(folder), kind], cwd=ROOT)
    checkpoint = folder / f"checkpoint-{SAVED}"
    for _ in range(600):
        if (checkpoint / "trainer_state.json").is_file():
            break
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=30) == -signal.SIGKILL
    assert not (folder / f"checkpoint-{STEPS}").exists()


@pytest.mark.parametrize("kind", ["roberta", pytest.param("llama", marks=pytest.mark.slow)])
def test_killed_and_resumed_equals_uninterrupted(kind: str, tmp_path: Path) -> None:
    expected, expected_losses = train(tmp_path / "whole", kind)
    kill_after_checkpoint(tmp_path / "killed", kind)
    found, losses = train(tmp_path / "killed", kind, resume=True)
    assert losses == expected_losses
    assert len(losses) == STEPS - SAVED
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("host", [llama, roberta, llama_classifier])
def test_saved_model_holds_host_and_adapter(host: Callable[..., nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    frozen = {key: value.clone() for key, value in host().state_dict().items()}
    model = opened(host)
    trainer = Trainer(model, arguments(tmp_path, max_steps=3), train_dataset=rows_for(host))
    trainer.train()
    trainer.save_model()
    inputs = batch_for(model)
    with torch.no_grad():
        expected = logits(model.eval(), inputs)

    # The host alone is what it was, and loads into the plain class.
    alone = zeroinit.host_state_dict(model)
    torch.testing.assert_close(alone, frozen, rtol=0, atol=0)
    host().load_state_dict(alone, strict=True)

    # What Trainer wrote loads into a host with a like adapter; its config names no attention of ours.
    other = opened(host, seed=7)
    other.load_state_dict(transformers.modeling_utils.load_state_dict(str(tmp_path / "model.safetensors")))
    with torch.no_grad():
        assert torch.equal(logits(other, inputs), expected)
    assert "zeroinit" not in (tmp_path / "config.json").read_text()
    plain, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert all("zeroinit" in key for key in report["unexpected_keys"])
    assert plain.config._attn_implementation == "sdpa"


def test_accelerate_saves_and_loads_its_state(tmp_path: Path) -> None:
    def start() -> tuple[accelerate.Accelerator, nn.Module, torch.optim.Optimizer]:
        accelerator = accelerate.Accelerator(cpu=True)
        model = opened(roberta).train()
        optimizer = torch.optim.AdamW(zeroinit.trainable(model).values(), lr=0.01)
        return accelerator, *accelerator.prepare(model, optimizer)

    def steps(accelerator: accelerate.Accelerator, model: nn.Module, optimizer: torch.optim.Optimizer, n: int) -> float:
        for _ in range(n):
            loss = model(tokens_of(4), labels=tokens_of(4)[:, 0] % 3).loss
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        return loss.item()

    accelerator, model, optimizer = start()
    steps(accelerator, model, optimizer, 3)
    accelerator.save_state(str(tmp_path))
    loss = steps(accelerator, model, optimizer, 3)
    expected = {name: p.detach().clone() for name, p in zeroinit.trainable(model).items()}
    accelerator, model, optimizer = start()
    accelerator.load_state(str(tmp_path))
    assert steps(accelerator, model, optimizer, 3) == loss
    torch.testing.assert_close(dict(zeroinit.trainable(model)), expected, rtol=0, atol=0)


@pytest.mark.parametrize("host", [llama, roberta])
def test_condition_is_a_column_that_trainer_keeps(host: Callable[..., nn.Module], tmp_path: Path) -> None:
    features = torch.randn(ROWS, 2, 5, generator=torch.Generator().manual_seed(2))
    rows = rows_for(host, prompt_condition=features, comment=torch.zeros(ROWS))
    dataset = datasets.Dataset.from_list([{key: value.tolist() for key, value in row.items()} for row in rows])
    model = opened(host, CONDITION)
    before = {name: p.detach().clone() for name, p in zeroinit.trainable(model).items()}
    trainer = Trainer(model, arguments(tmp_path, max_steps=2), train_dataset=dataset, eval_dataset=dataset)
    assert "comment" not in next(iter(trainer.get_train_dataloader()))
    predicted = torch.from_numpy(trainer.predict(dataset.select(range(4))).predictions)
    with torch.no_grad(), zeroinit.conditioned(model.eval(), features[:4]):
        torch.testing.assert_close(predicted, logits(model, tokens_of(ROWS)[:4]), rtol=1e-4, atol=1e-5)
    trainer.train()
    for name, parameter in zeroinit.trainable(model).items():
        assert not torch.equal(parameter, before[name]), name


@pytest.mark.parametrize("host", [llama, roberta])
def test_only_the_adapter_trains(host: Callable[..., nn.Module], tmp_path: Path) -> None:
    model = opened(host)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    # Weight decay and gradient checkpointing must not reach the host either.
    options = arguments(tmp_path, max_steps=2, weight_decay=0.1, activation_checkpointing=True)
    Trainer(model, options, train_dataset=rows_for(host)).train()
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == set(zeroinit.trainable(model))


@pytest.mark.parametrize("host", [llama, roberta])
def test_evaluation_before_training_leaves_prompts_alive(host: Callable[..., nn.Module], tmp_path: Path) -> None:
    """Evaluation fills the cache of keys and values; training from it would leave prompts without gradients."""
    rows = rows_for(host)
    options = arguments(tmp_path, max_steps=6, eval_strategy="steps", eval_steps=2, learning_rate=0.05)
    model = opened(host)
    trainer = Trainer(model, options, train_dataset=rows, eval_dataset=rows)
    first = trainer.evaluate()["eval_loss"]
    before = {name: p.detach().clone() for name, p in zeroinit.trainable(model).items()}
    trainer.train()
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert len({first, *losses}) == 1 + 3, "evaluation after a step repeats the one before it"
    for name, parameter in zeroinit.trainable(model).items():
        assert not torch.equal(parameter, before[name]), name
    model.eval()
    inputs = batch_for(model)
    with torch.no_grad():
        cached = logits(model, inputs)
    torch.testing.assert_close(cached, logits(model, inputs), rtol=1e-4, atol=1e-5)


def _step(model: nn.Module, optimizer: Callable[..., torch.optim.Optimizer]) -> None:
    """A step in eval mode: nothing but the step tells the cache."""
    trained = optimizer(list(zeroinit.trainable(model).values()), lr=0.1)
    with torch.enable_grad():
        logits(model, batch_for(model)).pow(2).mean().backward()
    trained.step()


def _edit(model: nn.Module) -> None:
    for parameter in zeroinit.trainable(model).values():
        parameter.mul_(0.5)


def _edit_host(model: nn.Module) -> None:
    names = ("v_proj.weight", "value.weight", "qkv.weight")
    for name, parameter in model.named_parameters():
        if name.endswith(names):
            parameter.mul_(0.5)


def _replace_data(model: nn.Module) -> None:
    for parameter in zeroinit.trainable(model).values():
        parameter.data = parameter.data * 0.5


def _replace_parameter(model: nn.Module) -> None:
    for module in list(model.modules()):
        if isinstance(module, zeroinit.GatedPrompt):
            module.prompt = nn.Parameter(module.prompt * 0.5)


def _load_state_dict(model: nn.Module) -> None:
    model.load_state_dict({key: value * 0.9 for key, value in model.state_dict().items()})


def _assign_state_dict(model: nn.Module) -> None:
    model.load_state_dict({key: value * 0.9 for key, value in model.state_dict().items()}, assign=True)


def _load(model: nn.Module, folder: Path) -> None:
    zeroinit.save(model, folder)
    zeroinit.detach(model)
    zeroinit.load(model, folder)
    _edit(model)
    zeroinit.save(model, folder)
    zeroinit.detach(model)
    zeroinit.load(model, folder)


def _activate(model: nn.Module) -> None:
    zeroinit.attach(model, zeroinit.ZeroInit(length=2), "other")
    open_gates(model)
    zeroinit.activate(model, "default")
    zeroinit.activate(model, "other")


CHANGES: dict[str, Callable[..., None]] = {
    "sgd": lambda model, _: _step(model, torch.optim.SGD),
    "adamw": lambda model, _: _step(model, torch.optim.AdamW),
    "adamw of one tensor": lambda model, _: _step(model, lambda p, lr: torch.optim.AdamW(p, lr=lr, foreach=False)),
    "adamw fused": lambda model, _: _step(model, lambda p, lr: torch.optim.AdamW(p, lr=lr, fused=True)),
    "edit": lambda model, _: _edit(model),
    "edit of the host": lambda model, _: _edit_host(model),
    "data replaced": lambda model, _: _replace_data(model),
    "parameter replaced": lambda model, _: _replace_parameter(model),
    "load_state_dict": lambda model, _: _load_state_dict(model),
    "load_state_dict that assigns": lambda model, _: _assign_state_dict(model),
    "load": _load,
    "activate": lambda model, _: _activate(model),
    "to dtype": lambda model, _: model.to(torch.bfloat16).float(),
    "to double": lambda model, _: [_edit(model.double()), model.float()],
}


# What no tensor counts: seen by every pass over more than one token.
UNCOUNTED: dict[str, Callable[..., None]] = {
    "edit of data": lambda model, _: [p.data.mul_(0.5) for p in zeroinit.trainable(model).values()],
}
# One token may be served from the cache of prompts' keys.
CASES = [
    *((host, 9, change) for host in HOSTS for change in CHANGES | UNCOUNTED),
    *((host, 1, change) for host in ("llama", "roberta") for change in CHANGES),
]


@pytest.mark.parametrize("inference", [False, True], ids=["no_grad", "inference_mode"])
@pytest.mark.parametrize(("host", "length", "change"), CASES)
def test_evaluation_sees_every_change(host: str, length: int, change: str, inference: bool, tmp_path: Path) -> None:
    model = opened(HOSTS[host])
    inputs = batch_for(model)[:, :length]
    quietly = torch.inference_mode if inference else torch.no_grad
    with quietly():
        before = logits(model, inputs)
        assert torch.equal(logits(model, inputs), before)
    with torch.no_grad():
        (CHANGES | UNCOUNTED)[change](model, tmp_path)
    with quietly():
        found = logits(model, inputs)
    model.train()  # nothing is cached here, and these hosts have no dropout
    with torch.no_grad():
        expected = logits(model, inputs)
    assert not torch.allclose(expected, before, atol=1e-4)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("host", HOSTS)
def test_gradients_after_evaluation_are_those_without(host: str) -> None:
    model, expected = opened(HOSTS[host]), opened(HOSTS[host])
    with torch.no_grad():
        logits(model, batch_for(model, seed=2))
    for each in (model, expected):
        logits(each, batch_for(each)).pow(2).mean().backward()
    torch.testing.assert_close(gradients(model), gradients(expected), rtol=0, atol=0)
