"""Language: what a model answers to a prompt, and how likely it finds what could follow.

A prompt and what follows it are tokenized apart and joined. Tokenized together, a token could reach over the border:
generation, which starts after the prompt's own tokens, could never say it, and the loss would learn the unsayable.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from tasks.bench.errors import InputError
from tasks.outputs._texts import check_length, padded

Tokens = NDArray[np.int32]
IGNORED = -100
"""The label of a token that is given, and neither learned nor weighed."""


class Asked(Protocol):
    """What a model is asked."""

    @property
    def id(self) -> str:
        """Its name in records and refusals."""
        ...

    @property
    def prompt(self) -> str:
        """All that stands before the response, the template applied."""
        ...

    @property
    def target(self) -> str:
        """The response, without the end of the sequence."""
        ...

    @property
    def options(self) -> tuple[str, ...]:
        """Texts whose likelihood after the prompt is wanted; none where there is no choice."""
        ...

    @property
    def image(self) -> Path | None:
        """The picture that it is about."""
        ...


class Pictures(Protocol):
    """Where the features of pictures come from."""

    def features(self, paths: Sequence[Path | None]) -> tuple[torch.Tensor, torch.Tensor]:
        """(rows, depths, width), and (rows,): False where there is no picture."""
        ...


class Said(NamedTuple):
    """What a model said; what was not asked for is empty or 0."""

    text: str
    """The answer, up to the end of the sequence, stripped."""
    nll: float = 0.0
    """Of the target and the end of the sequence, summed over `tokens`, in nats."""
    tokens: int = 0
    options: tuple[float, ...] = ()
    """The log-probability of each option after the prompt, summed over its tokens."""
    truncated: bool = False
    """The answer was stopped by `max_new_tokens`."""
    new_tokens: int = 0
    """Tokens of the answer, the end of the sequence not counted."""
    cut: bool = False
    """What was weighed was cut to `max_length`."""


@dataclass(frozen=True, eq=False)
class Row:
    """One example in tokens: its prompt, and everything to learn or to weigh after it."""

    id: str
    prompt: Tokens
    continuations: tuple[Tokens, ...]
    image: Path | None
    answer: bool
    """Whether one is to be generated."""
    cut: bool
    """Whether something after the prompt did not fit."""

    def __len__(self) -> int:
        return len(self.prompt) + max(map(len, self.continuations), default=0)


class LmReader:
    """Reads prompts and responses; learns and weighs padded on the right, generates padded on the left.

    Args:
        tokenizer: the backbone's; its `model_max_length` is what the backbone can read.
        max_length: tokens of a prompt and what follows it, at most.
        max_new_tokens: of a generated answer; 0 generates none.
        weigh_target: whether to weigh the target of what is asked. Options are weighed wherever there are some.
        temperature: 0 always takes the likeliest token, or beam.
        top_p: share of the probability that tokens are drawn from.
        num_beams: beams of the search.
        pictures: gives the features of the examples' pictures.
        seed: of the draws. Each batch draws from its own, made of this one and its examples' names.
        cut: what is longer than `max_length` is cut there, and told, instead of refused.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        max_length: int,
        max_new_tokens: int = 0,
        weigh_target: bool = False,
        temperature: float = 0.0,
        top_p: float = 1.0,
        num_beams: int = 1,
        pictures: Pictures | None = None,
        seed: int = 0,
        cut: bool = False,
    ) -> None:
        check_length(max_length, tokenizer)
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.max_new_tokens = max_new_tokens
        self.weigh_target = weigh_target
        self.num_beams = num_beams
        # top_k is said because transformers would take the 50 likeliest where it is not.
        self.draws: dict[str, Any] = (
            {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0}
            if temperature
            else {"do_sample": False}
        )
        self.pictures = pictures
        self.seed = seed
        self.cut = cut

    def fit(self, examples: Sequence[Asked]) -> list[Row]:
        """Prompts with their targets; where cutting is allowed, only those whose target is not all cut away.

        Raises:
            InputError: an example is too long, or nothing is left.
        """
        rows = [row for row in self._rows(examples, learning=True) if len(row.continuations[0])]
        if examples and not rows:
            raise InputError(
                f"none of {len(examples)} examples leaves room for a target in max_length = {self.max_length} tokens: "
                "give more"
            )
        return rows

    def ask(self, examples: Sequence[Asked]) -> list[Row]:
        """One row an example.

        Raises:
            InputError: an example is too long.
        """
        rows = self._rows(examples, learning=False)
        for row in rows:
            if row.answer and len(row.prompt) + self.max_new_tokens > self.tokenizer.model_max_length:
                raise InputError(
                    f"{row.id}: a prompt of {len(row.prompt)} tokens and max_new_tokens = {self.max_new_tokens} are "
                    f"more than the {self.tokenizer.model_max_length} that the backbone reads: "
                    "lower max_new_tokens, or leave the record out"
                )
        return rows

    def _rows(self, examples: Sequence[Asked], *, learning: bool) -> list[Row]:
        """In compact arrays, a thousand examples at a time: a large file is never one list of lists."""
        targets = learning or self.weigh_target
        rows = []
        for first in range(0, len(examples), 1000):
            batch = examples[first : first + 1000]
            prompts = self._tokens([example.prompt for example in batch], prompts=True)
            ended = self._tokens([example.target for example in batch]) if targets else []
            chosen = iter(() if learning else self._tokens([text for example in batch for text in example.options]))
            end = np.array([self.tokenizer.eos_token_id], dtype=np.int32)
            for place, example in enumerate(batch):
                after = [np.concatenate([ended[place], end])] if targets else []
                after += islice(chosen, len(example.options))
                rows.append(self._row(example, prompts[place], after, answer=not learning and self.max_new_tokens > 0))
        return rows

    def _tokens(self, texts: Sequence[str], *, prompts: bool = False) -> list[Tokens]:
        """Each text in tokens; a prompt begins as the tokenizer begins a sequence, and does not end."""
        if not texts:
            return []
        found = self.tokenizer(list(texts), add_special_tokens=prompts)["input_ids"]
        # Asked of a letter: of nothing, a beginning that is the end too would look like an end.
        ends = prompts and self.tokenizer("a")["input_ids"][-1] == self.tokenizer.eos_token_id
        return [np.array(ids[:-1] if ends else ids, dtype=np.int32) for ids in found]

    def _row(self, example: Asked, prompt: Tokens, after: list[Tokens], *, answer: bool) -> Row:
        longest = max(map(len, after), default=0)
        cut = longest > 0 and len(prompt) + longest > self.max_length
        if cut and not self.cut:
            raise InputError(
                f"{example.id}: a prompt of {len(prompt)} tokens and {longest} after it are more than "
                f"max_length = {self.max_length}: raise it, or leave the record out"
            )
        if not len(prompt) or not all(map(len, after)):
            raise InputError(f"{example.id}: its prompt, or one of its options, is empty; give it a text")
        room = max(0, self.max_length - len(prompt))
        return Row(example.id, prompt, tuple(tokens[:room] for tokens in after), example.image, answer, cut)

    def collate(self, rows: Sequence[Row]) -> dict[str, Any]:
        """One batch.

        `input_ids`, `attention_mask`, `labels` (sequences, tokens): every continuation of every row after its prompt;
        `counts` (rows,): how many each row has. Where answers are generated, `prompt_ids`, `prompt_mask`
        (rows, tokens) and `seed`. With pictures, `prompt_condition`: their features and mask, by row.
        """
        whole = [(row.prompt, tokens) for row in rows for tokens in row.continuations]
        batch: dict[str, Any] = {"counts": torch.tensor([len(row.continuations) for row in rows])}
        if whole:
            ids, mask = padded([np.concatenate(pair)[: self.max_length] for pair in whole], self._padding)
            given = torch.tensor([len(prompt) for prompt, _ in whole])
            learned = mask.bool() & (torch.arange(ids.shape[1]) >= given[:, None])
            batch |= {"input_ids": ids, "attention_mask": mask, "labels": ids.where(learned, IGNORED)}
        if rows[0].answer:
            ids, mask = padded([row.prompt for row in rows], self._padding, left=True)
            names = "\n".join([str(self.seed), *(row.id for row in rows)])
            seed = int.from_bytes(hashlib.sha256(names.encode()).digest()[:6])
            batch |= {"prompt_ids": ids, "prompt_mask": mask, "seed": torch.tensor(seed)}
        if self.pictures is not None:
            batch["prompt_condition"] = self.pictures.features([row.image for row in rows])
        return batch

    @property
    def _padding(self) -> int:
        """LLaMA's first tokenizer has no padding; any token does where the mask is 0."""
        pad = self.tokenizer.pad_token_id
        return self.tokenizer.eos_token_id if pad is None else pad

    def loss(self, model: torch.nn.Module, batch: Mapping[str, Any]) -> torch.Tensor:
        """The mean cross-entropy of the targets' tokens."""
        return F.cross_entropy(*_learned(model, batch))

    def weight(self, batch: Mapping[str, Any]) -> int:
        """The targets' tokens."""
        return int((batch["labels"][:, 1:] != IGNORED).sum())

    def outputs(self, model: torch.nn.Module, batch: Mapping[str, Any]) -> list[torch.Tensor]:
        """The logits of every token."""
        return [_logits(model, batch)]

    def predict(self, model: torch.nn.Module, batch: Mapping[str, Any]) -> list[Said]:
        """What the model says to each row."""
        weighed = _weigh(model, batch)
        answers = self._answer(model, batch) if "seed" in batch else [("", False, 0)] * len(weighed)
        said = []
        for found, (text, stopped, length) in zip(weighed, answers, strict=True):
            nll, tokens = (-found[0][0], found[0][1]) if self.weigh_target else (0.0, 0)
            options = tuple(total for total, _ in found[int(self.weigh_target) :])
            said.append(Said(text, nll, tokens, options, stopped, length))
        return said

    def decode(self, examples: Sequence[Asked], rows: Sequence[Row], said: Sequence[Said]) -> list[Said]:
        """One entry an example, which says too where what was weighed had been cut."""
        return [one._replace(cut=row.cut) for row, one in zip(rows, said, strict=True)]

    def _answer(self, model: torch.nn.Module, batch: Mapping[str, Any]) -> list[tuple[str, bool, int]]:
        """The text of each row's answer, whether it was stopped, and its tokens."""
        condition = {key: batch[key] for key in ("prompt_condition",) if key in batch}
        with torch.random.fork_rng():
            torch.manual_seed(int(batch["seed"]))
            sequences = model.generate(  # type: ignore[operator]
                input_ids=batch["prompt_ids"],
                attention_mask=batch["prompt_mask"],
                max_new_tokens=self.max_new_tokens,
                num_beams=self.num_beams,
                eos_token_id=self.tokenizer.eos_token_id,
                pad_token_id=self._padding,
                synced_gpus=False,  # each process answers rows of its own, for as long as they take
                **self.draws,
                **condition,
            )
        found = []
        for tokens in sequences[:, batch["prompt_ids"].shape[1] :].tolist():
            ended = self.tokenizer.eos_token_id in tokens
            kept = tokens[: tokens.index(self.tokenizer.eos_token_id)] if ended else tokens
            text = self.tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            found.append((text.strip(), not ended, len(kept)))
        return found


def _weigh(model: torch.nn.Module, batch: Mapping[str, Any]) -> list[list[tuple[float, int]]]:
    """The log-probability and the tokens of each continuation, by row."""
    counts = batch["counts"].tolist()
    found: list[list[tuple[float, int]]] = [[] for _ in counts]
    owners = [row for row, count in enumerate(counts) for _ in range(count)]
    # Rows with many options make many sequences: never more of them at a time than there are rows.
    for first in range(0, len(owners), len(counts)):
        part = slice(first, first + len(counts))
        nll = F.cross_entropy(*_learned(model, batch, part), reduction="none")
        tokens = (batch["labels"][part] != IGNORED).sum(1).tolist()
        for owner, each in zip(owners[part], nll.double().cpu().split(tokens), strict=True):
            found[owner].append((-float(each.sum()), len(each)))
    return found


def _logits(
    model: torch.nn.Module, batch: Mapping[str, Any], part: slice = slice(None), **options: torch.Tensor
) -> torch.Tensor:
    """(sequences, tokens, vocabulary) of some sequences, each under its row's condition."""
    inputs = {name: batch[name][part] for name in ("input_ids", "attention_mask")}
    if "prompt_condition" in batch:
        owners = torch.repeat_interleave(batch["counts"])[part]
        inputs["prompt_condition"] = tuple(each[owners] for each in batch["prompt_condition"])
    return model(**inputs, use_cache=False, **options).logits


def _learned(
    model: torch.nn.Module, batch: Mapping[str, Any], part: slice = slice(None)
) -> tuple[torch.Tensor, torch.Tensor]:
    """In float32, the logits from which labeled tokens are told, and these tokens.

    Only places that come before a label somewhere in the batch go through the vocabulary: its logits are the largest
    tensors of all, and a prompt needs none.
    """
    labels = batch["labels"][part][:, 1:]
    places = (labels != IGNORED).any(0).nonzero().squeeze(1)
    labels = labels[:, places]
    kept = labels != IGNORED
    return _logits(model, batch, part, logits_to_keep=places)[kept].float(), labels[kept]
