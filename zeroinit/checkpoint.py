"""save and load: a folder with two files, nothing of the frozen host; the authors' and PEFT's layouts too.

``adapter_config.json`` holds the method, its fields and the host's fingerprint; ``adapter_model.safetensors``
the planted tensors and the task head's. Loading is strict: a missing, unexpected or mis-shaped tensor is an error.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor, nn

from zeroinit import methods
from zeroinit.attach import attach, host_of, take_out
from zeroinit.attention import Gate
from zeroinit.host import Host
from zeroinit.methods import Method
from zeroinit.methods.zero_init import ZeroInit
from zeroinit.seams import Seam, UnsupportedHostError, seam_of
from zeroinit.tree import ours

Model = TypeVar("Model", bound=nn.Module)
CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
FORMAT = 1


class CheckpointError(ValueError):
    """An adapter's file cannot be read, or does not fit the model; the message says where and what to do."""


def save(model: nn.Module, folder: str | os.PathLike[str], name: str | None = None) -> Path:
    """Write an adapter to a folder.

    Args:
        model: a model with adapters.
        folder: made if it is absent; files of an earlier adapter are replaced.
        name: which adapter; by default the active one.

    Returns:
        The folder.

    Raises:
        ValueError: if there is no such adapter, or not exactly one is active and none is named.
    """
    host = host_of(model)
    name = host.one(name)
    method = host.methods[name]
    config = {
        "format": FORMAT,
        "library": "zeroinit",
        "method": methods.name_of(method),
        "fields": asdict(method),  # type: ignore[call-overload]
        "host": fingerprint(host.seam),
    }
    values = method.values(host, name)
    tensors = {key: whole(value).detach().contiguous().clone() for key, value in values.items()}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / f"{TENSORS}.part")
    (folder / f"{CONFIG}.part").write_text(json.dumps(config, indent=2) + "\n")
    for file in (TENSORS, CONFIG):
        (folder / f"{file}.part").replace(folder / file)
    return folder


def load(model: Model, folder: str | os.PathLike[str], name: str = "default") -> Model:
    """Attach a saved adapter; it is active and trainable. PEFT's ``adaption_prompt`` folders are read too.

    Args:
        model: a model like the one that the adapter was trained on.
        folder: what ``save`` wrote, or ``PeftModel.save_pretrained`` of an ``AdaptionPromptConfig``.
        name: the adapter's name on this model.

    Returns:
        The model.

    Raises:
        CheckpointError: if a file is missing or broken, or the adapter is of another host; the model is unchanged.
    """
    folder = Path(folder)
    config = _read_config(folder / CONFIG)
    tensors = _read_tensors(folder / TENSORS)
    method = _method_in(config, folder / CONFIG)
    if _is_peft(config):
        tensors = _peft_tensors(model, folder, method, tensors)
    else:
        _check_host(folder, config.get("host"), model)
    return _planted(model, method, name, tensors, str(folder))


def saved_method(folder: str | os.PathLike[str]) -> Method:
    """The method of a saved adapter; for PEFT's ``adaption_prompt`` the same in our terms.

    Raises:
        CheckpointError: if the folder's configuration cannot be read.
    """
    path = Path(folder) / CONFIG
    return _method_in(_read_config(path), path)


def _method_in(config: Mapping[str, Any], path: Path) -> Method:
    if _is_peft(config):
        length, layers = config.get("adapter_len"), config.get("adapter_layers")
        if not isinstance(length, int) or not isinstance(layers, int):
            raise CheckpointError(f"{path} gives no adapter_len and adapter_layers")
        fields: Mapping[str, Any] = {"length": length, "layers": layers, "gate": "identity"}
        fields = {**fields, "per_head": False, "train_head": False}
    elif config.get("library") == "zeroinit" and config.get("format") == FORMAT:
        fields = _mapping(config.get("fields"))
    else:
        raise CheckpointError(f"{path} is no zeroinit adapter of format {FORMAT}")
    try:
        return methods.get(str(config.get("method", "zero_init"))).from_fields(fields)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from None


def _is_peft(config: Mapping[str, Any]) -> bool:
    return str(config.get("peft_type", "")).upper() == "ADAPTION_PROMPT"


def load_official(
    model: Model,
    path: str | os.PathLike[str],
    gate: Gate = "tanh",
    length: int | None = None,
    layers: int | None = None,
    name: str = "default",
) -> Model:
    """Attach an adapter in the layout that the paper's authors released.

    ``adapter_query.weight`` (L · K, width) and ``layers.{i}.attention.gate`` (1, heads, 1, 1) or, in the oldest
    files, (1,). The head order of queries in transformers' LLaMA is the authors', so nothing is permuted.

    Args:
        model: a transformers LLaMA.
        path: the ``.pth`` file; read with ``weights_only=True``.
        gate: "tanh" as the authors' training code opens gates, "identity" as their inference code.
        length: K; without it and ``layers``, L counts from the lowest gate that is not zero to the top.
        layers: L.
        name: the adapter's name on this model.

    Returns:
        The model.

    Raises:
        CheckpointError: if the file is unreadable or does not fit; both numbers are named.
    """
    path = Path(path)
    prompts, gates = _read_official(path)
    seam = seam_of(model)
    sites = seam.sites()
    if len(gates) != len(sites):
        raise CheckpointError(f"{path} has gates for {len(gates)} layers, the model has {len(sites)} layers")
    length, layers = _official_size(path, prompts, gates, length, layers)
    if layers > len(sites):
        raise CheckpointError(f"{path} adapts {layers} layers, the model has {len(sites)}")
    top = sites[-1]
    if prompts.shape[1] != top.width:
        raise CheckpointError(f"{path} has prompts of width {prompts.shape[1]}, the model's width is {top.width}")
    heads = {gate_.numel() for gate_ in gates}
    if len(heads) > 1 or heads - {1, top.heads}:
        raise CheckpointError(f"{path} has gates of {sorted(heads)} heads, the model has {top.heads} heads")
    per_head = heads == {top.heads}
    method = ZeroInit(length=length, layers=layers, gate=gate, per_head=per_head, train_head=False)
    first = len(sites) - layers
    tensors = {f"layers.{first + i}.prompt": prompts[i * length :][:length].float() for i in range(layers)}
    tensors |= {f"layers.{i}.gate": gates[i].float().reshape(-1, 1, 1) for i in range(first, len(sites))}
    return _planted(model, method, name, tensors, str(path))


def fingerprint(seam: Seam) -> dict[str, object]:
    """What a host must have in common with the one that an adapter was trained on.

    Methods that need no attention adapt hosts whose attention cannot be reached: of those the type must do.
    """
    try:
        sites = seam.sites()
    except UnsupportedHostError:
        return {"type": seam.host_type}
    return {
        "type": seam.host_type,
        "layers": len(sites),
        "width": [site.width for site in sites],
        "heads": [site.heads for site in sites],
        "kv_heads": [site.projection.kv_heads for site in sites],
    }


def _check_host(folder: Path, saved: object, model: nn.Module) -> None:
    here = fingerprint(seam_of(model))
    there = _mapping(saved)
    for key, value in here.items():
        if there.get(key) != value:
            raise CheckpointError(
                f"{folder / CONFIG} was trained on a host with {key} {_short(there.get(key))}, "
                f"this model has {key} {_short(value)}: load it into a model like its own"
            )


def _short(value: object) -> object:
    """A list of one repeated number as that number."""
    if not isinstance(value, list):
        return value
    values = cast(list[object], value)
    return values[0] if len(set(map(str, values))) == 1 else values


def whole(value: Tensor) -> Tensor:
    """The tensor that a sharded one is a part of; all processes must ask for it."""
    gather = getattr(value, "full_tensor", None)
    return value if gather is None else gather()


def _planted(model: Model, method: Method, name: str, tensors: dict[str, Tensor], source: str) -> Model:
    """Attach, and copy the tensors in, strictly; on failure the model is as it was, what was active included."""
    largest = max((size for tensor in tensors.values() for size in tensor.shape), default=0)
    for field in ("length", "rank", "bottleneck"):  # before that much memory is asked for
        if (size := getattr(method, field, 0)) > largest:
            raise CheckpointError(f"{source} is configured for {field} {size}, but no tensor in it is that large")
    already = ours(model)
    before = already.active if isinstance(already, Host) else ()
    try:
        host = host_of(attach(model, method, name))
    except (ValueError, RuntimeError, NotImplementedError) as error:  # the fields are the file's
        raise CheckpointError(f"{source} does not fit this model: {error}") from error
    targets = host.methods[name].values(host, name)
    problems = [f"{key} is missing" for key in sorted(set(targets) - set(tensors))]
    problems += [f"{key} is unexpected" for key in sorted(set(tensors) - set(targets))]
    wanted = sorted(set(targets) & set(tensors))
    problems += [
        f"{key} is {tuple(tensors[key].shape)}, the model needs {tuple(targets[key].shape)}"
        for key in wanted
        if tensors[key].shape != targets[key].shape
    ]
    problems += [
        f"{key} is not finite" if tensors[key].is_floating_point() else f"{key} is {tensors[key].dtype}, not floating"
        for key in wanted
        if not tensors[key].is_floating_point() or not tensors[key].to(targets[key].dtype).isfinite().all()
    ]
    if problems:
        take_out(host, name, before)
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise CheckpointError(f"{source} does not fit this model: {'; '.join(problems[:3])}{more}")
    with torch.no_grad():
        for key, target in targets.items():
            target.copy_(tensors[key])
    host.forget()
    return model


def _peft_tensors(model: nn.Module, folder: Path, method: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those of PEFT's AdaptionPrompt under our names: a scalar gate a layer without tanh, prompts of (1, K, width)."""
    if "gpt2" in str(getattr(getattr(model, "config", None), "model_type", "")):
        raise CheckpointError(f"{folder}: PEFT adds GPT-2's prompts behind its output map, which no gate here equals")
    renamed: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        match = re.search(r"\.(\d+)\.[^.]+\.adaption_(prompt|gate)$", key)
        if match is None:
            raise CheckpointError(f"{folder / TENSORS} has {key}, which is no part of an AdaptionPrompt")
        part = match[2]
        renamed[f"layers.{match[1]}.{part}"] = tensor.reshape(-1, 1, 1) if part == "gate" else tensor.squeeze(0)
    total, layers = len(seam_of(model).sites()), method.layers
    if layers > total:
        raise CheckpointError(f"{folder} adapts {layers} layers, the model has {total}")
    expected = {f"layers.{i}.prompt" for i in range(total - layers, total)}
    if {key for key in renamed if key.endswith("prompt")} != expected:
        held = sorted(int(key.split(".")[1]) for key in renamed if key.endswith("prompt"))
        raise CheckpointError(f"{folder} adapts layers {held}, in a model of {total} the top {layers} are others")
    return renamed


def _read_official(path: Path) -> tuple[Tensor, list[Tensor]]:
    """Prompts (L · K, width), and the gates from the lowest layer to the top."""
    try:
        read: object = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what is no such file makes an unpickler raise whatever it likes
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"{path} cannot be read as a file of tensors: {reason}") from None
    found = _dict(read)
    state = _dict(found.get("model", found))
    prompts = state.get("adapter_query.weight")
    gates = {
        int(match[1]): value if isinstance(value, Tensor) else None
        for key, value in state.items()
        if isinstance(key, str) and (match := re.fullmatch(r"layers\.(\d{1,4})\.attention\.gate", key))
    }
    tensors = [value for value in (prompts, *gates.values()) if isinstance(value, Tensor)]
    if any(value.is_meta for value in tensors):
        raise CheckpointError(f"{path} has tensors without values: give the file that was saved after training")
    if not isinstance(prompts, Tensor) or prompts.dim() != 2 or len(tensors) <= len(gates):
        raise CheckpointError(f"{path} has no adapter_query.weight of two dimensions: not the authors' layout")
    if not gates or sorted(gates) != list(range(len(gates))):
        raise CheckpointError(f"{path} has gates for layers {sorted(gates)}, not for 0 up to the last")
    return prompts, [gate for _, gate in sorted(gates.items()) if gate is not None]


def _dict(value: object) -> dict[object, object]:
    return cast(dict[object, object], value) if isinstance(value, dict) else {}


def _official_size(
    path: Path, prompts: Tensor, gates: list[Tensor], length: int | None, layers: int | None
) -> tuple[int, int]:
    """(K, L), given or found: the lowest gate that is not zero is the lowest adapted layer."""
    rows = prompts.shape[0]
    if length is None and layers is None:
        lowest = next((index for index, gate in enumerate(gates) if gate.any()), None)
        if lowest is None:
            raise CheckpointError(f"{path} has only zero gates, which do not tell the layers: give length")
        layers = len(gates) - lowest
    if length is None:
        if not layers or layers < 1 or rows % layers:
            raise CheckpointError(f"{path} has {rows} prompt rows, not a multiple of {layers} layers: give length")
        length = rows // layers
    if length < 1 or rows % length or rows // length != (layers or rows // length):
        raise CheckpointError(f"{path} has {rows} prompt rows, which is not {layers or 'some'} layers of {length}")
    return length, rows // length


def _read_config(path: Path) -> Mapping[str, Any]:
    try:
        return _mapping(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}; give the folder that `save` wrote") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is no valid JSON: {str(error)[:200]}") from None


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {str(error)[:200]}") from None


def _mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise CheckpointError(f"{CONFIG} has {type(value).__name__} where an object is expected")
    return cast(Mapping[str, Any], value)
