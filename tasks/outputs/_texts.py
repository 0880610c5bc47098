"""What readers of texts have in common: no more is read than a backbone can, and unlike lengths make one batch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.bench.errors import InputError


def check_length(max_length: int, tokenizer: Any) -> None:
    """Refuse more tokens than the backbone reads.

    Raises:
        InputError: they are more.
    """
    if max_length > tokenizer.model_max_length:
        raise InputError(
            f"max_length is {max_length}, but the backbone reads {tokenizer.model_max_length} tokens: give less"
        )


def padded(
    sequences: Sequence[NDArray[np.int32]], padding: int, *, left: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """(sequences, tokens) of the longest, and 1 where a token is real."""
    longest = max(map(len, sequences))
    ids = np.full((len(sequences), longest), padding, dtype=np.int64)
    mask = np.zeros_like(ids)
    for place, sequence in enumerate(sequences):
        real = slice(longest - len(sequence), longest) if left else slice(len(sequence))
        ids[place, real], mask[place, real] = sequence, 1
    return torch.from_numpy(ids), torch.from_numpy(mask)
