"""RoBERTa's: it reads plain statements by masked words, as BERT does."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import RobertaConfig, RobertaForMaskedLM

from tasks.mini import plain, vocabulary
from tasks.mini.pretrain._language import SHAPE, alike
from tasks.mini.pretrain._loop import Loss, Recipe

GUESSED = {True: 0.35, False: 0.1}
"""Share of the words that it must guess: of those that `plain.CLASSES` has, and of all others."""
HIDDEN, EXCHANGED = 0.5, 0.3
"""Shares of these that are masked, and that are another word of their class; the rest stays, and nobody says which."""
MATES = 20
"""Words that one may be exchanged for."""
IGNORED = -100


def _untrained() -> RobertaForMaskedLM:
    tokenizer = vocabulary.wordpiece()
    config = RobertaConfig(
        **SHAPE,
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
    for batch in alike(pairs, tokenizer, size):
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


def _save(model: RobertaForMaskedLM, folder: Path) -> None:
    model.roberta.save_pretrained(folder)
    vocabulary.wordpiece().save_pretrained(folder)


RECIPE = Recipe(_untrained, _masked_words, _save, steps=3500, batch=16, rate=3e-3)
