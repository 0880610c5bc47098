"""One cell, from its configuration to its numbers: the whole house in one function.

Each name is a door to one room: `task` reads and scores, a backbone file builds the host, the library plants the
method, `train` and `evaluate` are the same for all of them, and `store` keeps what came out.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from accelerate.utils import set_seed
from transformers.utils import logging

import zeroinit
from tasks.bench import choose, discover, golden, processes, provenance, splits
from tasks.bench import task as tasks
from tasks.bench.cell import Cell, Part, Taught, describe
from tasks.bench.config import Run
from tasks.bench.errors import CellError, InputError
from tasks.bench.evaluate import distance, evaluate, probe
from tasks.bench.host import Host
from tasks.bench.parallel import Parameters
from tasks.bench.pictures import takes_pictures
from tasks.bench.store import Store
from tasks.bench.task import Data, Reader, Rules, Task
from tasks.bench.train import History, train


def run(config: Run, store: Store) -> Cell:
    """One cell, from its configuration to its row."""
    began = time.perf_counter()
    torch.set_num_threads(config.training.threads)
    provenance.commit()  # now: the code may change in its folder while a cell runs
    task = tasks.get(config.choice.task)
    data, rules = task.load(config), task.rules(config)
    golden.verified(config.choice.task, config.dataset)  # now: what cannot be scored is not worth training
    data = replace(data, fit=splits.sample(data.fit, config.training.fit_limit))
    chosen = choose.learning_rate(config, lambda trial: tuned(trial, task, data))
    if rules.retrain:
        data = replace(data, fit=[*data.fit, *data.tune], tune=[])
    again = rules.retrain or rules.peek_epochs
    taught = teach(chosen.run, task, data, rules, learned=None if again else chosen.learned)
    parts = {split: judge(taught, task, shown, config, data.fit) for split, shown in views(data, config).items()}
    cell = describe(config, chosen, task, data, taught, parts, time.perf_counter() - began)
    processes.told(lambda: store.write(cell, taught.host.model if config.trains else None))
    return cell


def teach(
    config: Run, task: Task, data: Data, rules: Rules | None = None, learned: choose.Learned | None = None
) -> Taught:
    """A host with the method in it, trained on the fit split; a final run may look at the report split by its rules.

    What was `learned` from the same data in a trial is put in, instead of being trained again.
    """
    set_seed(config.choice.seed)
    host = build(config, task.output)
    reader = task.reader(host.tokenizer, config)
    shows, own = reader.pictures is not None, frozenset(name for name, _ in host.model.named_parameters())
    parameters, step0 = plant(host, config, reader, data)
    taught = Taught(host, reader, parameters, step0, own, blind=shows and reader.pictures is None)
    if learned is None:
        return replace(taught, history=learn(taught, task, data, config, rules))
    choose.put(parameters, learned.tensors)
    return replace(taught, history=learned.history)


def tuned(config: Run, task: Task, data: Data) -> tuple[float, choose.Learned]:
    """What a run comes to on the tune split, by the first headline metric; and what it learned.

    Raises:
        InputError: there is no such split.
    """
    if not data.tune:
        raise InputError("a grid of learning rates is chosen from on the tune split, which is empty: give more data")
    taught = teach(config, task, data)
    shown = splits.sample(data.tune, config.training.tune_limit)
    value = score(taught, task, shown, config)
    tensors = {name: parameter.detach().to("cpu", copy=True) for name, parameter in taught.parameters.items()}
    return value, choose.Learned(taught.history, tensors)


def score(taught: Taught, task: Task, examples: Sequence[Any], config: Run, metric: str | None = None) -> float:
    """One metric, the first headline one unless said; turned around where less of it is better."""
    records = judge(taught, task, examples, config).records
    metric = metric or task.headline[config.dataset][0]
    value = task.metrics(records, config.dataset)[metric].value
    return -value if metric in task.lower else value


def build(config: Run, output: str) -> Host:
    """The backbone with the output that the task asks for, on its device."""
    outputs = discover.load("backbone", config.choice.backbone).OUTPUTS
    if output not in outputs:
        raise InputError(
            f"--backbone {config.choice.backbone} gives {', '.join(outputs)}, "
            f"but {config.choice.task} asks for {output}: choose another"
        )
    # A new task head is meant to be missing from the checkpoint, so no report about it.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    host = outputs[output](config)
    host.model.to(config.device)
    return host


def plant(host: Host, config: Run, reader: Reader, data: Data) -> tuple[Mapping[str, torch.nn.Parameter], float]:
    """Attach the method; what will train, and how far the outputs moved by attaching (0 where nothing starts open)."""
    host.model.requires_grad_(False)
    shown, reader.pictures = reader.pictures, None  # the frozen host reads the text alone
    before = probe(host.model, reader, data.report[:4])
    method = config.method
    if shown is not None and takes_pictures(config):
        shown.prepare([example.image for part in (data.fit, data.tune, data.report, data.shift) for example in part])
        method, reader.pictures = shown.conditioned(config), shown
    elif config.is_told:
        reader.pictures = shown  # nothing is looked at, but it stands beside those that are shown pictures
    try:
        if config.choice.adapter is not None:
            zeroinit.load(host.model, config.choice.adapter)
        elif method is not None:
            zeroinit.attach(host.model, method)
    except ValueError as error:
        raise InputError(f"--method {config.choice.method} does not fit: {error}") from error
    parameters = Parameters(host.model, zeroinit.trainable(host.model) if config.method is not None else ())
    step0 = distance(before, probe(host.model, reader, data.report[:4]))
    if config.choice.adapter is None and method is not None and method.starts_closed() and step0:
        raise CellError(
            f"attaching {config.choice.method} moved the outputs by {step0:g}, where it must change nothing"
        )
    return parameters, step0


def learn(taught: Taught, task: Task, data: Data, config: Run, rules: Rules | None) -> History:
    """Train what was planted, where anything is to be learned."""
    if not config.trains:
        return History()
    model, parameters = taught.host.model, taught.parameters
    peeks = None
    if rules is not None and rules.peek_epochs:
        metric = rules.peek_metric
        peeks = choose.Peeks(rules.peek_epochs, lambda: score(taught, task, data.report, config, metric), parameters)
    history = train(
        model,
        parameters,
        taught.reader,
        data.fit,
        config.training,
        config.choice.seed,
        after_epoch=peeks,
        planted=Parameters(model, [name for name in parameters if name not in taught.own]),
        look=partial(zeroinit.gates, model),
    )
    if peeks is None:
        return history
    peeks.restore()
    return replace(history, peeks=peeks.seen)


def views(data: Data, config: Run) -> dict[str, Sequence[Any]]:
    """What is scored: the report split, a fixed sample of the fit split, to show the gap, and the shift."""
    seen = splits.sample(data.fit, config.training.fit_sample)
    shown = {"report": data.report, "fit": seen, "shift": data.shift}
    return {split: part for split, part in shown.items() if part or split == "report"}


def judge(taught: Taught, task: Task, examples: Sequence[Any], config: Run, fit: Sequence[Any] = ()) -> Part:
    """The records of some examples, and how long it took to predict them."""
    began = time.perf_counter()
    predictions = predict(taught, task, examples, config, fit)
    seconds = time.perf_counter() - began
    return Part(processes.told(lambda: task.records(examples, predictions, config)), seconds)


def predict(taught: Taught, task: Task, examples: Sequence[Any], config: Run, fit: Sequence[Any]) -> Sequence[Any]:
    """What the model says, or for a baseline the task itself, who sees the answers, or those of `fit` and no input."""
    if config.is_told:
        return getattr(task, config.choice.method)(fit, examples, taught.reader, config)
    return evaluate(taught.host.model, taught.reader, examples, config.training.eval_batch_size)
