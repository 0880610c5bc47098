"""Spans: a long passage in overlapping windows, a start and an end from each token, and back to one text.

Follows the `run_qa` example of transformers: windows that miss the answer point at the first token (CLS), candidates
are the best starts x the best ends of each window, and CLS's own score stands for "no answer". As in BERT's original
code, a token may start a span only in the window that shows most of its context.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.outputs._texts import check_length, padded


class Asked(Protocol):
    """What a span is asked of."""

    @property
    def context(self) -> str:
        """The passage."""
        ...

    @property
    def question(self) -> str:
        """What is asked about it."""
        ...

    @property
    def answers(self) -> tuple[str, ...]:
        """Texts that answer it; none where there is no answer."""
        ...

    @property
    def starts(self) -> tuple[int, ...]:
        """Where each begins, in characters of the passage."""
        ...


class Span(NamedTuple):
    """The best span of a passage, its score, and how far "no answer" leads it."""

    text: str
    score: float
    null_score: float


@dataclass(frozen=True, eq=False)
class Window:
    """One window of one passage, token by token."""

    example: int
    ids: NDArray[np.int32]
    offsets: NDArray[np.int32]  # (tokens, 2): characters of the passage
    inside: NDArray[np.bool_]  # tokens of the passage
    startable: NDArray[np.bool_]  # of these, the ones that this window shows best
    cls: int
    label: tuple[int, int] | None = None  # first and last token of the answer

    def __len__(self) -> int:
        return len(self.ids)


class SpanReader:
    """Reads passages through windows of `max_length` tokens that share `doc_stride` tokens with their neighbors."""

    pictures: Any = None

    def __init__(self, tokenizer: Any, max_length: int, doc_stride: int, n_best: int, max_answer_length: int) -> None:
        check_length(max_length, tokenizer)
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.doc_stride = doc_stride
        self.n_best = n_best
        self.max_answer_length = max_answer_length

    def fit(self, examples: Sequence[Asked]) -> list[Window]:
        """Windows labeled with the first answer's tokens, or with CLS where it is not wholly inside."""
        return [replace(w, label=_label(w, examples[w.example])) for w in self.ask(examples)]

    def ask(self, examples: Sequence[Asked]) -> list[Window]:
        """The windows of each passage, in order."""
        return [window for at in range(0, len(examples), 1000) for window in self._windows(examples, at, at + 1000)]

    def _windows(self, examples: Sequence[Asked], first: int, last: int) -> Iterator[Window]:
        batch = examples[first:last]
        encoded = self.tokenizer(
            [self._short(example.question) for example in batch],
            [example.context for example in batch],
            truncation="only_second",
            max_length=self.max_length,
            stride=self.doc_stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
        insides = [np.array([part == 1 for part in encoded.sequence_ids(row)]) for row in range(len(ids))]
        owners = np.array(encoded["overflow_to_sample_mapping"])
        for owner in range(len(batch)):
            rows = np.flatnonzero(owners == owner)
            shown = _best_shown([int(insides[row].sum()) for row in rows], self.doc_stride)
            for row, best in zip(rows, shown, strict=True):
                startable = insides[row].copy()
                startable[startable] = best
                yield Window(
                    first + owner,
                    np.array(ids[row], dtype=np.int32),
                    np.array(offsets[row], dtype=np.int32),
                    insides[row],
                    startable,
                    ids[row].index(self.tokenizer.cls_token_id),
                )

    def _short(self, question: str) -> str:
        """The question, cut where it would leave no room for new passage beside it and the stride."""
        room = self.max_length - self.doc_stride - self.tokenizer.num_special_tokens_to_add(pair=True) - 8
        if len(question) <= room:  # a token has at least one character
            return question
        offsets = self.tokenizer(question, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return question if len(offsets) <= room else question[: offsets[room - 1][1]]

    def collate(self, rows: Sequence[Window]) -> dict[str, torch.Tensor]:
        """Padded on the right to the longest."""
        ids, mask = padded([row.ids for row in rows], self.tokenizer.pad_token_id)
        batch = {"input_ids": ids, "attention_mask": mask}
        labels = [row.label for row in rows if row.label is not None]
        if labels:
            starts, ends = zip(*labels, strict=True)
            batch |= {"start_positions": torch.tensor(starts), "end_positions": torch.tensor(ends)}
        return batch

    def loss(self, model: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The mean cross-entropy of starts and ends."""
        return model(**batch).loss

    def weight(self, batch: Mapping[str, torch.Tensor]) -> int:
        """Its rows: each has a start and an end."""
        return len(batch["start_positions"])

    def outputs(self, model: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """The scores of starts and of ends."""
        said = model(**batch)
        return [said.start_logits, said.end_logits]

    def predict(
        self, model: torch.nn.Module, batch: Mapping[str, torch.Tensor]
    ) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """The start and end scores of each row's own tokens."""
        said = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        starts, ends = said.start_logits.float().cpu().numpy(), said.end_logits.float().cpu().numpy()
        lengths = batch["attention_mask"].sum(1).tolist()
        return [(starts[row, :length], ends[row, :length]) for row, length in enumerate(lengths)]

    def decode(
        self,
        examples: Sequence[Asked],
        rows: Sequence[Window],
        said: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]],
    ) -> list[Span]:
        """The best span over all windows of each passage."""
        best: list[tuple[float, int, int] | None] = [None] * len(examples)
        null = [float("inf")] * len(examples)
        for window, (start, end) in zip(rows, said, strict=True):
            null[window.example] = min(null[window.example], float(start[window.cls] + end[window.cls]))
            found = best_span(window, start, end, self.n_best, self.max_answer_length)
            known = best[window.example]
            if found and (known is None or found[0] > known[0]):
                best[window.example] = found
        return [
            _span(example.context, *pair) for example, pair in zip(examples, zip(best, null, strict=True), strict=True)
        ]


def best_span(
    window: Window, start: NDArray[np.float32], end: NDArray[np.float32], n_best: int, max_answer_length: int
) -> tuple[float, int, int] | None:
    """Score, first and last character of the best span in a window; None where no candidate is allowed."""
    starts = np.argsort(start)[: -n_best - 1 : -1]
    ends = np.argsort(end)[: -n_best - 1 : -1]
    length = ends[None, :] - starts[:, None] + 1
    allowed = (length >= 1) & (length <= max_answer_length)
    allowed &= window.startable[starts][:, None] & window.inside[ends][None, :]
    if not allowed.any():
        return None
    scores = np.where(allowed, start[starts][:, None] + end[ends][None, :], -np.inf)
    first, last = np.unravel_index(int(scores.argmax()), scores.shape)
    return (
        float(scores[first, last]),
        int(window.offsets[starts[first], 0]),
        int(window.offsets[ends[last], 1]),
    )


def _span(context: str, best: tuple[float, int, int] | None, null: float) -> Span:
    """Without any candidate the text is empty, and "no answer" is measured against 0."""
    if best is None:
        return Span("", 0.0, null)
    score, first, last = best
    return Span(context[first:last], score, null - score)


def _label(window: Window, example: Asked) -> tuple[int, int]:
    if not example.answers:
        return window.cls, window.cls
    first = example.starts[0]
    last = first + len(example.answers[0])
    tokens = np.flatnonzero(window.inside)
    starts, ends = window.offsets[tokens, 0], window.offsets[tokens, 1]
    if not len(tokens) or starts[0] > first or ends[-1] < last:
        return window.cls, window.cls
    # The last token that starts at or before the answer, and the first that ends at or after it.
    return int(tokens[starts <= first][-1]), int(tokens[ends >= last][0])


def _best_shown(lengths: Sequence[int], stride: int) -> list[NDArray[np.bool_]]:
    """For each window of a passage, which of its tokens no other window shows with more context."""
    begins = np.concatenate([[0], np.cumsum(np.array(lengths[:-1], dtype=int) - stride)]).astype(int)
    context = np.full((len(lengths), int(begins[-1]) + lengths[-1]), -np.inf)
    for row, (begin, length) in enumerate(zip(begins, lengths, strict=True)):
        place = np.arange(length)
        context[row, begin : begin + length] = np.minimum(place, length - 1 - place) + 0.01 * length
    winners = context.argmax(axis=0)
    return [
        winners[begin : begin + length] == row for row, (begin, length) in enumerate(zip(begins, lengths, strict=True))
    ]
