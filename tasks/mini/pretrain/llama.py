"""LLaMA's: it reads plain statements by the next word, and begins with the attention of induction heads laid out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from tasks.mini import plain, vocabulary, world
from tasks.mini.pretrain._language import HEADS, SHAPE, WIDTH, alike
from tasks.mini.pretrain._loop import Loss, Recipe

HEAD_DIM = 32
"""Of which only those pairs that turn slowly can compare words."""
LESSONS = 4800
"""Lists that it begins with, and by which `plain.documents` counts what follows."""
LOOKED_UP, STATED = 5.0, 0.1
"""Weights of what was told before, and of what is told the first time; other words count 1."""
BACK, BACK_SHARES = (1, 2), (1.1, 1.1, 0.77, 0.55, 0.44, 0.33)
"""Distances in words, and how much of the fastest turning pairs it takes until most of the attention goes there."""
ROOM, ALIKE = 20, 3.3
"""Dimensions by which words are compared, and how strongly they are."""
SOFT = 0.1
"""How loud all else begins, beside what is usual."""


def _untrained() -> LlamaForCausalLM:
    tokenizer = vocabulary.unigram()
    config = LlamaConfig(
        **SHAPE,
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
    for batch in alike(pairs, tokenizer, size):
        ids, second = batch["input_ids"], batch["token_type_ids"][:, 1:] == 1
        wanted = ids[:, 1:]
        weights = torch.where(second, torch.where(torch.isin(wanted, looked_up), LOOKED_UP, 1.0), STATED)
        weights = weights * batch["attention_mask"][:, 1:]

        def loss(model: Any, ids: Tensor = ids, wanted: Tensor = wanted, weights: Tensor = weights) -> Tensor:
            scores = model(input_ids=ids).logits[:, :-1]  # padding comes last, where nothing looks back at it
            each = F.cross_entropy(scores.transpose(1, 2), wanted, reduction="none")
            return (each * weights).sum() / weights.sum()

        yield loss


def _save(model: LlamaForCausalLM, folder: Path) -> None:
    model.save_pretrained(folder)
    vocabulary.unigram().save_pretrained(folder)


RECIPE = Recipe(_untrained, _next_words, _save, steps=6000, batch=16, rate=1.5e-3, warmup=0.04)
