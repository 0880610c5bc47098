"""python -m tasks.mini.pretrain llama|roberta|vit: write the backbone that ships, or another like it elsewhere."""

import json
from pathlib import Path
from typing import Annotated

import torch
import typer

from tasks.mini import BACKBONES
from tasks.mini.pretrain import RECIPES, pretrain


def main(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(RECIPES)}.")],
    steps: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    seed: int = 0,
    to: Annotated[Path | None, typer.Option(help="Instead of the folder that ships.")] = None,
) -> None:
    """Pre-train one of the tiny backbones, and write it."""
    torch.set_num_threads(1)
    recipe = RECIPES[name]
    told = pretrain(recipe, to or BACKBONES / name, recipe.steps if steps is None else steps, seed)
    print(json.dumps(told))


if __name__ == "__main__":
    typer.run(main)
