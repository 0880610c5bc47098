"""A tiny computation is right on every device that torch sees, and torchvision's operators fit torch."""

import sys
from collections.abc import Iterator

import numpy as np

from tasks.bench.doctor import Finding, Request

CUDA = "none is seen, so all runs on the CPU: for one, NVIDIA's driver and a CUDA build of torch (https://pytorch.org)"
MPS = "none is seen: for one, macOS 14 or later on Apple silicon"


def findings(_: Request) -> Iterator[Finding]:
    """One a kind of device, and torchvision."""
    import torch

    yield _softmax("cpu", "float64", 1e-14)
    yield _softmax("cuda", "float32", 1e-5) if torch.cuda.is_available() else Finding("absent", "cuda", CUDA)
    if sys.platform == "darwin":
        there = torch.backends.mps.is_available()
        yield _softmax("mps", "float32", 1e-5) if there else Finding("absent", "mps", MPS)
    yield _operators()


def _softmax(device: str, dtype: str, most: float) -> Finding:
    """Attention in small: scores, softmax, a weighted sum; by numpy in double precision too."""
    import torch

    draw = np.random.default_rng(0)
    query, key, value = (draw.normal(size=(8, 16)) for _ in range(3))
    weights = np.exp(query @ key.T)
    expected = (weights / weights.sum(-1, keepdims=True)) @ value
    q, k, v = (torch.tensor(each, dtype=getattr(torch, dtype), device=device) for each in (query, key, value))
    found = (torch.softmax(q @ k.T, -1) @ v).cpu().double().numpy()
    apart = float(np.abs(found - expected).max())
    if not apart <= most:
        said = f"{dtype} attention is {apart:.1e} off numpy's: reinstall torch, and suspect the hardware"
        return Finding("wrong", device, said)
    named = f"{torch.cuda.get_device_name()}, " if device == "cuda" else ""
    return Finding("ok", device, f"{named}{dtype} attention as by numpy")


def _operators() -> Finding:
    import torch
    from torchvision import ops

    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.9], [3.0, 3.0, 4.0, 4.0]])
    kept = ops.nms(boxes, torch.tensor([0.5, 0.9, 0.1]), 0.5).tolist()
    if kept != [1, 2]:
        return Finding("wrong", "torchvision", "its operators compute nonsense: install it anew, together with torch")
    return Finding("ok", "torchvision", "its operators run with this torch")
