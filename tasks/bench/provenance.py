"""Where a number was made: the commit, the versions, the machine, the memory it took."""

import functools
import platform
import resource
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import torch

from tasks.bench import processes

PACKAGES = ("torch", "transformers", "timm", "accelerate", "peft", "tokenizers", "numpy")
ROOT = Path(__file__).parents[2]
CODE = ("tasks", "zeroinit", "pyproject.toml")
"""What a number can depend on; what else lies in a clone, as a user's own suites and adapters, changes none."""


_taken: tuple[str, bool | None] | None = None


def take(told: tuple[str, bool | None]) -> None:
    """From now on the code of this process is of that commit: it was sent here without its history."""
    global _taken
    _taken = told
    commit.cache_clear()


@functools.cache
def commit() -> tuple[str, bool | None]:
    """The commit of the code, and whether the code differs from it; empty where no clone of ours holds it."""
    if _taken is not None:
        return _taken
    top, head = _git("rev-parse", "--show-toplevel"), _git("rev-parse", "HEAD")
    if (
        not head or Path(top) != ROOT.resolve()
    ):  # where packages are installed may be inside of somebody's own repository
        return "", None
    return head, bool(_git("status", "--porcelain", "--", *CODE))


def versions() -> str:
    """The packages that numbers depend on."""
    found = [f"python {platform.python_version()}"]
    return ", ".join(found + [f"{name} {metadata.version(name)}" for name in PACKAGES])


def device(kind: str) -> str:
    """The device by name, and how many of them, where several processes ran the cell."""
    name = torch.cuda.get_device_name() if kind == "cuda" else f"{kind} {platform.machine()}"
    return name if processes.count() == 1 else f"{processes.count()} × {name}"


def peak_memory_mb(kind: str) -> float:
    """The most memory this process held: on the accelerator if it ran there, else in all."""
    if kind == "cuda":
        return round(torch.cuda.max_memory_allocated() / 2**20, 1)
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, 1)


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
