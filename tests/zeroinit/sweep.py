"""One row of the table of architectures: a host is built, an adapter attached, and everything checked or refused.

``python -m tests.zeroinit.sweep [jobs]`` does that for all that transformers and timm can build, and writes the table.
"""

import contextlib
import csv
import inspect
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import zeroinit
from tests.zeroinit import checks, hosts
from tests.zeroinit.checks import CLOSE, LENGTH, demand, deterministic, distance, open_gates, same, tensors
from zeroinit.seams import seam_of

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SECONDS = 300
TABLE = Path(__file__).parents[2] / "results" / "architectures.csv"


@dataclass
class Row:
    """What is known of one architecture; each check is "yes", or "-" where the host has nothing to check."""

    library: str
    architecture: str
    host: str = ""
    status: str = "not built"
    reason: str = ""
    layers: int = 0
    heads: int = 0
    kv_heads: int = 0
    bits: str = ""
    keys: str = ""
    gradients: str = ""
    causal: str = "-"
    padding: str = "-"
    cache: str = "-"
    rows: str = "-"
    restored: str = ""

    def see(self, model: nn.Module) -> nn.Module:
        """Note the class of the host."""
        self.host = type(model).__name__
        return model

    def cells(self) -> dict[str, str]:
        """The row as it is written."""
        return {key: str(value) for key, value in asdict(self).items()}

    def towers(self) -> list[str]:
        """The towers to choose from, where a composite was refused for having them."""
        _, _, paths = self.reason.partition("attach to the one you mean: ")
        return [path[1:] for path in paths.split(", ") if len(path) > 1]


Build = Callable[[str | None, torch.dtype], nn.Module]


def transformers_row(architecture: str, tower: str = "") -> Row:
    """Check one transformers architecture, or one tower of a composite."""

    def build(implementation: str | None, dtype: torch.dtype) -> nn.Module:
        model = hosts.build(architecture, implementation, dtype)
        return model.get_submodule(tower) if tower else model

    row = Row("transformers", f"{architecture} .{tower}" if tower else architecture)
    return _row(row, build, hosts.inputs_of, ("sdpa", "eager"))


def timm_row(name: str) -> Row:
    """Check one timm architecture."""

    def build(implementation: str | None, dtype: torch.dtype) -> nn.Module:
        if implementation is None:
            seam = seam_of(row.see(hosts.timm_type(name)))
            seam.sites(), seam.head_name()  # a refusal needs no weights
        return hosts.build_timm(name, implementation, dtype)

    row = Row("timm", name)
    return _row(row, build, hosts.timm_inputs_of, ("sdpa", "eager"))


def _row(row: Row, build: Build, inputs_of: Callable[..., dict[str, Tensor]], names: tuple[str, ...]) -> Row:
    try:
        with _within(SECONDS):
            _fill(row, build, inputs_of, names)
    except checks.BrokenError as error:
        row.status, row.reason = "BROKEN", str(error)
    except zeroinit.UnsupportedHostError as error:
        row.status, row.reason = "refused", str(error).partition("; supported are")[0]
    except _NotBuiltError as error:
        row.status, row.reason = "not built", str(error)
    except Exception as error:
        row.status, row.reason = "BROKEN", _sentence(error)
    return row


class _NotBuiltError(Exception):
    """The host itself could not be made or run here."""


@contextlib.contextmanager
def _within(seconds: int) -> Iterator[None]:
    def late(*_: Any) -> None:
        raise _NotBuiltError(f"takes more than {seconds} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _sentence(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


def _fill(row: Row, build: Build, inputs_of: Callable[..., dict[str, Tensor]], names: tuple[str, ...]) -> None:
    try:
        model = build(None, torch.float32)
    except (_NotBuiltError, zeroinit.UnsupportedHostError):
        raise
    except Exception as error:
        raise _NotBuiltError(_sentence(error)) from error
    row.see(model)
    _attach(model)
    zeroinit.detach(model)
    try:
        inputs = inputs_of(model)
        with torch.no_grad():
            outputs = _run(inputs)(model)
    except Exception as error:
        raise _NotBuiltError(f"no forward pass: {_sentence(error)}") from error
    if not outputs or not any(o.numel() and o.isfinite().any() for o in outputs):
        raise _NotBuiltError("its output is not finite with random weights")
    sites = seam_of(model).sites()
    row.layers, row.heads, row.kv_heads = len(sites), sites[-1].heads, sites[-1].projection.kv_heads
    bits = []
    for dtype_name, dtype in DTYPES.items():
        for name in names:
            try:
                model = build(name, dtype)
                with torch.no_grad():
                    outputs = _run(inputs)(model)
            except Exception:
                continue
            if not any(o.isfinite().any() for o in outputs):
                continue
            _check_bits(model, _run(inputs), f"{dtype_name}/{name}")
            bits.append(f"{dtype_name}/{name}")
    demand(bool(bits), "no dtype and implementation ran")
    row.bits = " ".join(bits)
    _check_open(row, build, inputs, [name for name in names if f"fp32/{name}" in bits])
    row.status = "exact"


def _attach(model: nn.Module) -> None:
    with deterministic():
        zeroinit.attach(model, zeroinit.ZeroInit(length=LENGTH))


def _run(inputs: dict[str, Tensor], **more: Any) -> Callable[[nn.Module], list[Tensor]]:
    def run(model: nn.Module) -> list[Tensor]:
        return tensors(_call(model, inputs, use_cache=False, **more))

    return run


def _call(model: nn.Module, inputs: dict[str, Tensor], **more: Any) -> Any:
    """One forward pass, floats in the model's dtype, options that it does not take left out."""
    takes = inspect.signature(model.forward).parameters
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    cast = {k: v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in inputs.items()}
    optional = {key: value for key, value in more.items() if key in takes}
    with deterministic():
        if "x" in cast and len(cast) == 1:
            return model(cast["x"])
        return model(**cast, **optional)


def _check_bits(model: nn.Module, run: checks.Run, where: str) -> None:
    """The frozen model's bits at zero gates, and all of it back after detach.

    torch chooses between kernels by ``requires_grad``, so it is the frozen model that runs first.
    """
    flags = [p.requires_grad for p in model.parameters()]
    model.requires_grad_(False)
    with torch.no_grad():
        frozen = run(model)
        demand(same(frozen, run(model)), f"{where}: the host itself is not deterministic")
        for parameter, flag in list(zip(model.parameters(), flags, strict=True))[1:]:
            parameter.requires_grad_(flag)
        before = _account(model)
        _attach(model)
        demand(same(frozen, run(model)), f"{where}: not the frozen model's bits at zero gates")
    # For tensors that need gradients torch may choose other kernels: there, close is all that can be asked.
    near = 1e-5 if "fp32" in where else 5e-2
    demand(distance(frozen, [o.detach() for o in run(model)]) < near, f"{where}: another model with gradients on")
    with torch.no_grad():
        open_gates(model)
        demand(not same(frozen, run(model)), f"{where}: an open gate changes nothing")
        zeroinit.detach(model)
        after = _account(model)
        model.requires_grad_(False)
        demand(same(frozen, run(model)), f"{where}: detach does not give the host back")
    demand(before[1:] == after[1:], f"{where}: detach leaves flags, hooks or attention implementations changed")
    demand(before[0].keys() == after[0].keys(), f"{where}: detach leaves parameters")
    demand(all(torch.equal(v, after[0][k]) for k, v in before[0].items()), f"{where}: detach changes weights")


def _account(model: nn.Module) -> tuple[Any, ...]:
    """Everything that detach must restore."""
    state = {key: value.clone() for key, value in model.state_dict().items()}
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    hooks = {name: (len(m._forward_pre_hooks), len(m._forward_hooks)) for name, m in model.named_modules()}
    named = {name: getattr(m, "config", None) for name, m in model.named_modules()}
    implementations = {name: getattr(c, "_attn_implementation", None) for name, c in named.items()}
    return state, flags, hooks, implementations, type(model)


def _check_open(row: Row, build: Build, inputs: dict[str, Tensor], names: list[str]) -> None:
    """Everything that only an open gate shows; timm's calls are seen where it calls torch's own attention."""
    run = _run(inputs)
    frozen, outputs = [], []
    for name in sorted(names, key=lambda name: (name == "eager") == (row.library == "transformers")):
        model = build(name, torch.float32)
        with torch.no_grad():
            frozen.append(run(model))
            _attach(model)
            open_gates(model)
            outputs.append(run(model))
    # Without a mask some hosts attend in other ways, and so do their adapters.
    far = distance(outputs[0], outputs[-1]) if distance(frozen[0], frozen[-1]) < 10 * CLOSE else 0.0
    demand(far < 10 * CLOSE, f"implementations disagree with open gates: {far:.1e}")
    eager = row.library == "transformers" and "eager" in names
    zeroinit.detach(model)
    _attach(model)
    checks.check_gradients(model, run)
    row.gradients = "yes"
    open_gates(model)
    row.keys = checks.check_formula(model, run, eager)
    row.rows = "yes" if checks.check_rows(model, run) else "-"
    if "input_ids" in inputs:
        row.causal = _invisible(model, inputs, "future tokens")
        row.padding = _invisible(model, inputs, "padding")
        row.cache = _check_cache(model, inputs)
    zeroinit.detach(model)
    row.restored = "yes"


def _invisible(model: nn.Module, inputs: dict[str, Tensor], what: str) -> str:
    """What the frozen host does not see must stay unseen with open gates."""
    ids = inputs["input_ids"]
    hidden = torch.zeros_like(ids, dtype=torch.bool)
    more: dict[str, Tensor] = {}
    if what == "padding":
        if "attention_mask" not in inspect.signature(model.forward).parameters:
            return "-"
        hidden[0, :3] = hidden[1, -3:] = True
        more = {"attention_mask": (~hidden).long()}
    else:
        hidden[:, -4:] = True
    other = torch.where(hidden, (ids + 17) % 80 + 5, ids)

    def seen() -> float | None:
        with torch.no_grad():
            try:
                pair = [tensors(_call(model, inputs | {"input_ids": x} | more, use_cache=False)) for x in (ids, other)]
            except Exception:
                return None
        both = [(a, b) for a, b in zip(*pair, strict=True) if a.shape[:2] == ids.shape]
        return distance([a[~hidden] for a, _ in both], [b[~hidden] for _, b in both]) if both else None

    with zeroinit.disabled(model):
        host = seen()
    if host is None or host > CLOSE:
        return "-"
    far = seen()
    demand(far is not None and far < CLOSE, f"{what} can be seen: {far}")
    return "yes"


def _check_cache(model: nn.Module, inputs: dict[str, Tensor]) -> str:
    """A step that continues a cache gives what the whole pass gives."""
    ids = inputs["input_ids"]
    if not {"cache", "past_key_values"} & inspect.signature(model.forward).parameters.keys():
        return "-"

    def gap() -> float | None:
        with torch.no_grad():
            try:
                whole = tensors(_call(model, inputs, use_cache=False))[0]
                part = _call(model, inputs | {"input_ids": ids[:, :-1]}, use_cache=True)
                rest = {"input_ids": ids[:, -1:], "past_key_values": part.past_key_values}
                step = tensors(_call(model, inputs | rest, use_cache=True))[0]
            except Exception:
                return None
        return distance([whole[:, -1]], [step[:, -1]]) if whole.dim() > 2 else None

    with zeroinit.disabled(model):
        host = gap()
    if host is None or host > 1e-3:
        return "-"
    far = gap()
    demand(far is not None and far < 1e-3, f"a cached step is not the whole pass: {far}")
    return "yes"


def rows_of(library: str, architecture: str) -> list[Row]:
    """The row of an architecture; for a composite, those of its towers too."""
    if library == "timm":
        return [timm_row(architecture)]
    row = transformers_row(architecture)
    return [row] + [transformers_row(architecture, tower) for tower in row.towers()]


def everything() -> list[tuple[str, str]]:
    """(library, architecture) of all that the two libraries can build."""
    return [("transformers", name) for name in hosts.transformers_architectures()] + [
        ("timm", name) for name in hosts.timm_architectures()
    ]


def read_table() -> dict[tuple[str, str], dict[str, str]]:
    """The rows that are committed."""
    with TABLE.open(newline="") as file:
        return {(row["library"], row["architecture"]): row for row in csv.DictReader(file)}


def _rows_of(named: tuple[str, str]) -> list[Row]:
    return rows_of(*named)


def main(jobs: int = 1) -> None:
    """Check everything and write the table."""
    # Workers are replaced now and then: what hundreds of classes leave behind adds up to gigabytes.
    with get_context("spawn").Pool(jobs, torch.set_num_threads, (1,), maxtasksperchild=100) as pool:
        found = pool.imap(_rows_of, everything())
        with TABLE.open("w", newline="") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
            writer.writeheader()
            for rows in found:
                writer.writerows(row.cells() for row in rows)
                file.flush()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
