"""A model that several processes train: a copy each (data parallel), or parts of one (FSDP2), as the launch says.

accelerate prepares both. Numbers do not depend on it: what is trained and how precisely is the configuration's, and
the launch says only where.
"""

import contextlib
import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator, DistributedType
from accelerate.state import AcceleratorState
from accelerate.utils import (
    DistributedDataParallelKwargs,
    FullyShardedDataParallelPlugin,
    GradientAccumulationPlugin,
    str_to_bool,
)

from tasks.bench import processes
from tasks.bench.config import Run
from tasks.bench.errors import InputError
from zeroinit.seams import UnsupportedHostError, seam_of

OTHERS = {"DEEPSPEED": "DeepSpeed", "MEGATRON_LM": "Megatron-LM", "PARALLELISM_CONFIG": "a parallelism config"}
"""What `accelerate launch` could ask for besides, by its variable."""


def check(run: Run) -> None:
    """Refuse a launch that would not run this cell, or not the same one everywhere.

    Raises:
        InputError: says what to change.
    """
    if set(processes.gathered(run.cell)) != {run.cell}:
        raise InputError("the processes see different files or settings: start all of them with the same ones")
    for variable, name in OTHERS.items():
        if _asked(f"ACCELERATE_USE_{variable}"):
            raise InputError(f"a cell does not run by {name}: launch it data parallel, or with FSDP2")
    if sharded() and os.environ.get("FSDP_VERSION", "2") != "2":
        raise InputError("a cell is sharded by FSDP's second version: pass --fsdp_version 2, or set FSDP_VERSION=2")
    if sharded() and _asked("FSDP_OFFLOAD_PARAMS"):
        raise InputError("a cell is evaluated where it is trained: leave FSDP_OFFLOAD_PARAMS out")
    if sharded() and run.device == "cpu" and torch.cuda.is_available():
        raise InputError("FSDP would take the GPUs: pass --device cuda, or hide them with CUDA_VISIBLE_DEVICES=")
    if processes.count() > 1 and run.device not in ("cpu", "cuda"):
        raise InputError(f"--device {run.device} serves one process: start one, or pass --device cpu")
    if run.device == "cuda" and (gpus := len(set(processes.gathered(_gpu())))) < processes.count():
        raise InputError(f"{processes.count()} processes share {gpus} GPUs: start one for each GPU")


def sharded() -> bool:
    """Whether the launch asks for FSDP."""
    return processes.count() > 1 and _asked("ACCELERATE_USE_FSDP")


class Prepared(NamedTuple):
    """A model ready to be trained: it is called as before, but may be wrapped."""

    accelerator: Accelerator
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer


def prepared(model: torch.nn.Module, optimizer: torch.optim.Optimizer, precision: str) -> Prepared:
    """The model and its optimizer as the launch wants them trained.

    Raises:
        InputError: the precision is not to be had on the model's device.
    """
    cpu = next(model.parameters()).device.type == "cpu"
    if cpu and precision == "fp16":
        raise InputError("precision is fp16, which needs a GPU: choose bf16 or no")
    plugin = _sharding(model) if sharded() else None
    os.environ["ACCELERATE_USE_FSDP"] = str(sharded()).lower()  # a process alone has no others to share with
    AcceleratorState._reset_state(reset_partial_state=True)  # a cell before this one may have had another precision
    accelerator = Accelerator(
        cpu=cpu,
        mixed_precision=precision,
        fsdp_plugin=plugin,
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        # A factor that no gradient reaches is told by its name, as in one process.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    if plugin is not None and accelerator.distributed_type == DistributedType.MULTI_CPU:
        # Accelerate asks for FSDP on accelerators alone; it is the same on CPUs.
        accelerator.state.distributed_type, accelerator.state.fsdp_plugin = DistributedType.FSDP, plugin
    model, optimizer = accelerator.prepare(model, optimizer)
    if plugin is not None:
        model = accelerator.prepare_model(model, evaluation_mode=True)  # its precision, which sharding leaves out
    return Prepared(accelerator, model, optimizer)


class Parameters(Mapping[str, torch.nn.Parameter]):
    """Parameters of a model by name, as they are in it now: sharding puts others in their places.

    Args:
        model: which has them.
        names: which of them.
    """

    def __init__(self, model: torch.nn.Module, names: Iterable[str]) -> None:
        self.model = model
        self.names = dict.fromkeys(names)

    def __getitem__(self, name: str) -> torch.nn.Parameter:
        if name not in self.names:
            raise KeyError(name)
        return self.model.get_parameter(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


@contextlib.contextmanager
def forward() -> Iterator[None]:
    """Around a forward pass of what was prepared.

    Raises:
        InputError: it reads a parameter elsewhere than in the module that holds it, where FSDP has but a part of it.
    """
    try:
        yield
    except RuntimeError as error:
        if not sharded() or "DTensor" not in str(error):
            raise
        raise InputError("FSDP cannot shard this method on this backbone: launch it data parallel") from error


def assemble(model: torch.nn.Module) -> None:
    """Give each process all of a sharded model, which then runs without the others."""
    for part in _parts(model):
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()


@contextlib.contextmanager
def assembled(model: torch.nn.Module) -> Iterator[None]:
    """The same for a while."""
    assemble(model)
    yield
    for part in _parts(model):
        part.reshard()
        part.set_reshard_after_forward(part is not model, recurse=False)


def _parts(model: torch.nn.Module) -> list[Any]:
    """The modules whose parameters are sharded together."""
    if not sharded():
        return []
    from torch.distributed.fsdp import FSDPModule

    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def _sharding(model: torch.nn.Module) -> FullyShardedDataParallelPlugin:
    """FSDP2 as the environment says; by default block by block, and always in the precision of the configuration."""
    from torch.distributed.fsdp import MixedPrecisionPolicy

    return FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy=None if "FSDP_AUTO_WRAP_POLICY" in os.environ else "transformer_based_wrap",
        transformer_cls_names_to_wrap=None if "FSDP_TRANSFORMER_CLS_TO_WRAP" in os.environ else _blocks(model),
        mixed_precision_policy=MixedPrecisionPolicy(),  # autocast computes in it, as in one process
        cpu_ram_efficient_loading=False,  # every process has read the whole host
    )


def _blocks(model: torch.nn.Module) -> list[str]:
    """The classes of a model's blocks; none where they are not known: it is then sharded as a whole."""
    try:
        return sorted({type(site.block).__name__ for site in seam_of(model).sites()})
    except UnsupportedHostError:
        return []


def _gpu() -> tuple[str, str]:
    """Which GPU this process uses, of which machine."""
    return platform.node(), str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)


def _asked(variable: str) -> bool:
    return bool(str_to_bool(os.environ.get(variable, "false")))
