"""The recipes of the three tiny backbones that ship in `backbones/`: pre-trained here on the plain world alone.

    python -m tasks.mini.pretrain llama|roberta|vit [--steps N] [--seed 0] [--to FOLDER]

The language models read plain statements (`plain.py`): LLaMA's architecture by the next word, RoBERTa's by masked
words. The ViT sees painted scenes of the same split, and says of each place of the lattice what stands there. No
question, no instruction, no caption and nothing of the shift is among what they see. `pretrained.json` beside the
weights tells the seed, the steps, the losses, the time, and the sha256 of the weights. `--steps 0` writes the same
model untrained.

One file a backbone, which holds its `RECIPE`: a file's name is its registration.
"""

import importlib
from collections.abc import Mapping
from pathlib import Path

from tasks.mini.pretrain._loop import Recipe
from tasks.mini.pretrain._loop import pretrain as pretrain

RECIPES: Mapping[str, Recipe] = {
    path.stem: importlib.import_module(f"{__name__}.{path.stem}").RECIPE
    for path in sorted(Path(__file__).parent.glob("[!_]*.py"))
}
