"""What the two language models have in common: their shape, and batches of documents of like length."""

import itertools
import random
from collections.abc import Iterator
from typing import Any

from torch import Tensor

WIDTH, DEPTH, HEADS = 64, 4, 4
SHAPE = {
    **{"hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS, "intermediate_size": 3 * WIDTH},
    "initializer_range": WIDTH**-0.5,
    **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
}


def alike(pairs: Iterator[tuple[str, str]], tokenizer: Any, size: int) -> Iterator[dict[str, Tensor]]:
    """Batches of documents of like length, in any order of lengths."""
    draw = random.Random("batches")
    while True:
        pool = sorted(itertools.islice(pairs, 20 * size), key=lambda pair: sum(map(len, pair)))
        parts = [pool[first : first + size] for first in range(0, len(pool), size)]
        draw.shuffle(parts)
        for part in parts:
            first, second = zip(*part, strict=True)
            yield tokenizer(list(first), list(second), padding=True, return_token_type_ids=True, return_tensors="pt")
