"""A checkpoint's folder, given or from the hub, and the sha256 of the weights in it."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from tasks.bench import hub
from tasks.bench.digests import digest
from tasks.bench.errors import InputError


def folder(name: str, wanted: Sequence[str] = ("*.json", "*.txt", "*.model", "*.safetensors")) -> Path:
    """A path given, else the local cache or the hub.

    Raises:
        InputError: neither has it.
    """
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    return Path(
        hub.asked(
            lambda: snapshot_download(name, allow_patterns=list(wanted), etag_timeout=5),
            f"the checkpoint {name} is neither a folder nor",
            "pass --checkpoint FOLDER",
        )
    )


def title(name: str) -> str:
    """What results call a checkpoint: a path by its last part, a name of the hub as it is."""
    return Path(name).name if Path(name).exists() else name


def weights_sha256(place: Path) -> str:
    """The sha256 of `model.safetensors`; of several parts, that of theirs in order of name.

    Raises:
        InputError: there is none.
    """
    parts = [place / "model.safetensors"]
    if not parts[0].is_file():
        parts = sorted(place.glob("model-*-of-*.safetensors"))
    if not parts:
        raise InputError(f"--checkpoint {place} holds no model.safetensors: save it with save_pretrained first")
    found = [digest(part) for part in parts]
    return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()
