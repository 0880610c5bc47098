"""The embedded default: a generated world, so that the suite runs anywhere, offline, in minutes."""

from pathlib import Path

BACKBONES = Path(__file__).parent / "backbones"
"""The three tiny backbones that ship: `llama`, `roberta` and `vit`, as `pretrain/` made them."""
