"""The recipe of the three tiny backbones that ship in `backbones/`: pre-trained here on the plain world alone.

    python -m tasks.mini.pretrain llama|roberta|vit [--steps N] [--seed 0] [--to FOLDER]

The language models read plain statements (`plain.py`): LLaMA's architecture by the next word, RoBERTa's by masked
words. The ViT sees painted scenes of the same split, and says of each place of the lattice what stands there. No
question, no instruction, no caption and nothing of the shift is among what they see. `pretrained.json` beside the
weights tells the seed, the steps, the losses, the time, and the sha256 of the weights. `--steps 0` writes the same
model untrained.
"""

import itertools
import json
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, RobertaConfig, RobertaForMaskedLM

from tasks.backbones.vit import tiny
from tasks.bench.config import digest
from tasks.bench.train import progress
from tasks.mini import BACKBONES, pictures, plain, vocabulary, world

WIDTH, DEPTH, HEADS = 64, 4, 4
HEAD_DIM = 32
"""LLaMA's, of which only those pairs that turn slowly can compare words."""
LANGUAGE = {
    **{"hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS, "intermediate_size": 3 * WIDTH},
    "initializer_range": WIDTH**-0.5,
    **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
}
"""What the two language models have in common."""
GUESSED = {True: 0.35, False: 0.1}
"""Share of the words that RoBERTa's must guess: of those that `plain.CLASSES` has, and of all others."""
HIDDEN, EXCHANGED = 0.5, 0.3
"""Shares of these that are masked, and that are another word of their class; the rest stays, and nobody says which."""
MATES = 20
"""Words that one may be exchanged for."""
LESSONS = 4800
"""Lists that LLaMA's begins with, and by which `plain.documents` counts what follows."""
LOOKED_UP, STATED = 5.0, 0.1
"""Weights of what was told before, and of what is told the first time; other words count 1."""
BACK, BACK_SHARES = (1, 2), (1.1, 1.1, 0.77, 0.55, 0.44, 0.33)
"""Distances in words, and how much of the fastest turning pairs it takes until most of the attention goes there."""
ROOM, ALIKE = 20, 3.3
"""Dimensions by which words are compared, and how strongly they are."""
SOFT = 0.1
"""How loud all else begins, beside what is usual."""
IGNORED = -100
Loss = Callable[[Any], Tensor]
"""Of a model, over one batch."""


@dataclass(frozen=True)
class Recipe:
    """How one of the three comes to be.

    Attributes:
        build: the model before training, drawn from torch's generator.
        losses: the loss of each batch, without end, from a seed and a size.
        save: what is kept of it, into a folder.
        steps: so many, of `batch` documents or pictures each.
        batch: see there.
        rate: the highest learning rate.
        warmup: share of the steps until there.
    """

    build: Callable[[], nn.Module]
    losses: Callable[[int, int], Iterator[Loss]]
    save: Callable[[Any, Path], None]
    steps: int
    batch: int
    rate: float
    warmup: float = 0.08


def pretrain(recipe: Recipe, folder: Path, steps: int, seed: int = 0) -> dict[str, Any]:
    """Train, and write the weights and what is to be known about them; the same numbers on the same machine."""
    torch.manual_seed(seed)
    model = recipe.build().train()
    optimizer = torch.optim.AdamW(model.parameters(), recipe.rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, max(1, steps), pct_start=recipe.warmup)
    began, losses = time.process_time(), []
    for loss in progress(itertools.islice(recipe.losses(seed, recipe.batch), steps), "pretrain"):
        value = loss(model)
        losses.append(value.item())
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    folder.mkdir(parents=True, exist_ok=True)
    recipe.save(model.eval(), folder)
    told = {
        "world": world.VERSION,
        "seed": seed,
        "steps": steps,
        "batch": recipe.batch,
        "rate": recipe.rate,
        "cpu_seconds": round(time.process_time() - began),
        "loss": [round(float(part.mean()), 4) for part in np.array_split(losses, 20) if len(part)],
        "sha256": digest(folder / "model.safetensors"),
    }
    (folder / "pretrained.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return told


# Language


def _llama() -> LlamaForCausalLM:
    tokenizer = vocabulary.unigram()
    config = LlamaConfig(
        **LANGUAGE,
        vocab_size=len(tokenizer),
        num_key_value_heads=HEADS,
        head_dim=HEAD_DIM,
        max_position_embeddings=vocabulary.LONGEST,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    _lay_induction(model)
    return model


@torch.no_grad()
def _lay_induction(model: LlamaForCausalLM) -> None:
    """Lay out the attention of induction heads (Olsson et al., https://arxiv.org/abs/2209.11895), to learn from there.

    To look something up takes a head that tells each word what stood before it, and a later one that finds words by
    that. Each is of no use without the other, and a model so small finds neither in a million words. Here the first two
    heads of the first layer look one and two words back, and those of the second layer find where the word now read
    stood one word before, where the word before stands, and where the same word stands. What they say of it is drawn.
    """
    layers: Any = model.model.layers
    turns: Any = model.model.rotary_emb.inv_freq
    for layer in layers:
        layer.self_attn.o_proj.weight *= SOFT
        layer.mlp.down_proj.weight *= SOFT
    half = HEAD_DIM // 2
    rows = torch.arange(HEADS * HEAD_DIM).split(HEAD_DIM)
    first, second = (layers[place].self_attn for place in (0, 1))

    # A share that all words have in common makes a query and a key that ask for a distance alone; the rest of the width
    # has room for what a word is, and for what stood one and two words before.
    common, rest = nn.init.orthogonal_(torch.empty(WIDTH, WIDTH)).split([1, WIDTH - 1])
    word, *told = rest.split(ROOM)
    model.model.embed_tokens.weight.add_(common)
    fast = torch.zeros(half)
    fast[: len(BACK_SHARES)] = torch.tensor(BACK_SHARES)
    for head, distance, place in zip(rows, BACK, told, strict=False):
        query = torch.cat([fast, torch.zeros(half)])
        key = torch.cat([fast * torch.cos(turns * distance), fast * torch.sin(turns * distance)])
        for map, toward in ((first.q_proj, query), (first.k_proj, key)):
            map.weight[head] = 0.3 * map.weight[head] + toward[:, None] * common
        first.v_proj.weight[head[:ROOM]] = word / 2
        first.o_proj.weight[:, head[:ROOM]] = place.T

    # Words are compared where rotation turns least.
    slow = torch.cat([pair := torch.arange(half - ROOM // 2, half), half + pair])
    for head, (query, key) in zip(rows, ((word, told[0]), (told[0], word), (word, word)), strict=False):
        for map, toward in ((second.q_proj, query), (second.k_proj, key)):
            map.weight[head] *= 0.3
            map.weight[head[slow]] += ALIKE * toward


def _next_words(seed: int, size: int) -> Iterator[Loss]:
    """What is recalled counts most, and most of that what has to be looked up: a few words, lost among the others."""
    tokenizer = vocabulary.unigram()
    pairs = ((told, f" {recalled}{tokenizer.eos_token}") for told, recalled in plain.documents(seed, lessons=LESSONS))
    values = [value for group in (world.PEOPLE, world.TOWNS, world.MATERIALS, world.PRICES) for value in group]
    values += [f"({letter})" for letter in plain.LETTERS]
    looked_up = torch.tensor([tokenizer(f" {value}", add_special_tokens=False)["input_ids"][0] for value in values])
    for batch in _alike(pairs, tokenizer, size):
        ids, second = batch["input_ids"], batch["token_type_ids"][:, 1:] == 1
        wanted = ids[:, 1:]
        weights = torch.where(second, torch.where(torch.isin(wanted, looked_up), LOOKED_UP, 1.0), STATED)
        weights = weights * batch["attention_mask"][:, 1:]

        def loss(model: Any, ids: Tensor = ids, wanted: Tensor = wanted, weights: Tensor = weights) -> Tensor:
            scores = model(input_ids=ids).logits[:, :-1]  # padding comes last, where nothing looks back at it
            each = F.cross_entropy(scores.transpose(1, 2), wanted, reduction="none")
            return (each * weights).sum() / weights.sum()

        yield loss


def _save_llama(model: LlamaForCausalLM, folder: Path) -> None:
    model.save_pretrained(folder)
    vocabulary.unigram().save_pretrained(folder)


def _roberta() -> RobertaForMaskedLM:
    tokenizer = vocabulary.wordpiece()
    config = RobertaConfig(
        **LANGUAGE,
        vocab_size=len(tokenizer),
        max_position_embeddings=vocabulary.LONGEST + 1,
        type_vocab_size=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return RobertaForMaskedLM(config)


def _masked_words(seed: int, size: int) -> Iterator[Loss]:
    """The two parts of a document in either order; of the words to guess, some stay or are exchanged, as BERT's are.

    BERT exchanges one in ten for any word, which is seen at a glance. Here it takes a look at the other part.
    """
    tokenizer: Any = vocabulary.wordpiece()
    mates, classed = _mates(tokenizer)
    draw, turned = torch.Generator().manual_seed(seed), random.Random(f"masks {seed}")
    told = plain.documents(seed, lettered=0.0)
    pairs = (pair if turned.choice((1, -1)) > 0 else (pair[1], pair[0]) for pair in told)
    for batch in _alike(pairs, tokenizer, size):
        ids, mask = batch["input_ids"], batch["attention_mask"]
        chance, how, which = (torch.rand(ids.shape, generator=draw) for _ in range(3))
        guessed = (chance < torch.where(classed[ids], GUESSED[True], GUESSED[False])) & (ids > tokenizer.mask_token_id)
        labels = ids.masked_fill(~guessed, IGNORED)
        shown = ids.masked_fill(guessed & (how < HIDDEN), tokenizer.mask_token_id)
        exchanged = guessed & (how >= HIDDEN) & (how < HIDDEN + EXCHANGED)
        shown = torch.where(exchanged, mates[ids, (which * MATES).long()], shown)
        yield lambda model, shown=shown, mask=mask, labels=labels: F.cross_entropy(
            model(input_ids=shown, attention_mask=mask).logits[labels != IGNORED], labels[labels != IGNORED]
        )


def _mates(tokenizer: Any) -> tuple[Tensor, Tensor]:
    """(words, MATES): what each may be exchanged for, others of its class or any; (words,): whether it has a class."""
    any_word = torch.Generator().manual_seed(0)
    size = len(tokenizer)
    mates = torch.randint(tokenizer.mask_token_id + 1, size, (size, MATES), generator=any_word)
    classed = torch.zeros(size, dtype=torch.bool)
    for values in plain.CLASSES.values():
        ids = tokenizer.convert_tokens_to_ids([value.lower() for value in values])
        mates[ids], classed[ids] = torch.tensor(ids).repeat(MATES)[:MATES], True
    return mates, classed


def _save_roberta(model: RobertaForMaskedLM, folder: Path) -> None:
    model.roberta.save_pretrained(folder)
    vocabulary.wordpiece().save_pretrained(folder)


def _alike(pairs: Iterator[tuple[str, str]], tokenizer: Any, size: int) -> Iterator[dict[str, Tensor]]:
    """Batches of documents of like length, in any order of lengths."""
    draw = random.Random("batches")
    while True:
        pool = sorted(itertools.islice(pairs, 20 * size), key=lambda pair: sum(map(len, pair)))
        parts = [pool[first : first + size] for first in range(0, len(pool), size)]
        draw.shuffle(parts)
        for part in parts:
            first, second = zip(*part, strict=True)
            yield tokenizer(list(first), list(second), padding=True, return_token_type_ids=True, return_tensors="pt")


# Pictures

ASPECTS = {"kind": world.KINDS, "color": world.COLORS, "pattern": world.PATTERNS, "size": world.SIZES}
"""What is asked of each place, and the answers; one more says that nothing is there."""

SKETCH, DRAWN = 4, 3.0
"""Squares along each side of the drawing in rough, and its weight."""
UNEVEN = 1.0
"""The most by which a picture is lit more at one edge than in its middle."""


class _Places(nn.Module):
    """A ViT whose class token says what stands in every place and redraws all in rough; each patch says its own place.

    Without the drawing it would overlook whatever has no name, shades of gray above all.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder = tiny()
        self.counts = [len(answers) + 1 for answers in ASPECTS.values()]
        self.whole = nn.Linear(self.encoder.embed_dim, world.SIDE**2 * sum(self.counts))
        self.near = nn.Linear(self.encoder.embed_dim, sum(self.counts))
        self.drawn = nn.Linear(self.encoder.embed_dim, 3 * SKETCH**2)
        patches = self.encoder.patch_embed.grid_size[0]
        across = [int((patch + 0.5) * world.SIDE / patches) for patch in range(patches)]
        self.owners = [row * world.SIDE + column for row in across for column in across]

    def loss(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """Over all places, patches and aspects, and over the drawing; `labels` are (pictures, places, aspects)."""
        tokens = self.encoder.forward_features(pixels)
        whole = self.whole(tokens[:, 0]).unflatten(1, (world.SIDE**2, -1))
        near = self.near(tokens[:, 1:])
        scores, wanted = torch.cat([whole, near], dim=1), torch.cat([labels, labels[:, self.owners]], dim=1)
        parts = zip(scores.split(self.counts, dim=2), wanted.unbind(2), strict=True)
        each = [F.cross_entropy(part.transpose(1, 2), right, reduction="none") for part, right in parts]
        places = torch.stack(each).sum(0)
        rough = F.adaptive_avg_pool2d(pixels, SKETCH).flatten(1)
        drawing = F.mse_loss(self.drawn(tokens[:, 0]), rough)
        return places[:, : world.SIDE**2].mean() + places[:, world.SIDE**2 :].mean() + DRAWN * drawing


def _places(seed: int, size: int) -> Iterator[Loss]:
    from tasks.outputs.classes import Squash

    squash = Squash(pictures.PIXELS)
    scenes = world.scenes("plain", seed)
    while True:
        part = list(itertools.islice(scenes, size))
        pixels = torch.stack([torch.from_numpy(np.array(pictures.painted(scene))) for scene in part])
        light = torch.stack([_light(scene) for scene in part])
        lit = (pixels.permute(0, 3, 1, 2) * light[:, None]).clamp(0, 255).to(torch.uint8)
        shown = squash.normalized(lit)
        labels = torch.tensor([_labels(scene) for scene in part])
        yield lambda model, shown=shown, labels=labels: model.loss(shown, labels)


def _light(scene: world.Scene) -> Tensor:
    """(height, width): how bright each pixel is lit, from some side, and more or less evenly."""
    draw = random.Random(f"light {scene.key}")
    angle, strength = draw.uniform(0, 2 * math.pi), draw.uniform(0, UNEVEN)
    along = torch.linspace(-1, 1, pictures.PIXELS)
    return 1 + strength * (math.sin(angle) * along[:, None] + math.cos(angle) * along)


def _labels(scene: world.Scene) -> list[list[int]]:
    """The answer of every place and aspect; the last of each is that nothing is there."""
    found = [[len(answers) for answers in ASPECTS.values()] for _ in range(world.SIDE**2)]
    for thing in scene.things:
        column, row = thing.place
        found[row * world.SIDE + column] = [
            answers.index(getattr(thing, aspect)) for aspect, answers in ASPECTS.items()
        ]
    return found


def _save_vit(model: _Places, folder: Path) -> None:
    save_file(model.encoder.state_dict(), folder / "model.safetensors")


RECIPES = {
    "llama": Recipe(_llama, _next_words, _save_llama, steps=6000, batch=16, rate=1.5e-3, warmup=0.04),
    "roberta": Recipe(_roberta, _masked_words, _save_roberta, steps=3500, batch=16, rate=3e-3),
    "vit": Recipe(_Places, _places, _save_vit, steps=5000, batch=16, rate=2e-3),
}


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
