"""How captions are scored: BLEU-1..4, ROUGE-L and CIDEr by `pycocoevalcap`'s scorers, called one by one.

Its `COCOEvalCap` is never used: it always constructs SPICE, which downloads. A picture is measured first, by numbers
that add up; the totals of a set follow from these alone. All values are fractions, as the official code gives them
(papers print them times 100). CIDEr is CIDEr-D, and weighs a phrase by the number of pictures whose references hold
it: it is comparable only where these document frequencies are those of the same, whole set.
"""

import gzip
import json
import math
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tasks.bench import durable
from tasks.bench.documents import read_json
from tasks.bench.errors import InputError
from tasks.metrics import ptb

ORDERS = 4
"""Phrases of one to four words count."""
FORMAT = 1
MOST = 2**53
"""Pictures of a set: from here on a count is no number of a computer's any more."""


class Measured(NamedTuple):
    """One picture's caption against its references, all of them tokenized."""

    length: int
    """Words of the caption."""
    correct: tuple[int, ...]
    """Its phrases of 1..4 words that a reference has, each at most as often as there."""
    reference_length: int
    """Words of the reference whose length is closest; of two, the shorter."""
    rouge_l: float
    cider: float | None
    """None where no document frequencies were given."""


@dataclass(frozen=True)
class Frequencies:
    """In the references of how many pictures a phrase occurs, and how many pictures there are."""

    counts: Mapping[tuple[str, ...], float]
    pictures: int

    @classmethod
    def of(cls, references: Sequence[Sequence[str]]) -> "Frequencies":
        """Those of a set: the tokenized references of each picture."""
        from pycocoevalcap.cider.cider_scorer import CiderScorer

        scorer = CiderScorer(n=ORDERS)
        for captions in references:
            scorer.cook_append(None, captions)
        scorer.compute_doc_freq()
        return cls(dict(scorer.document_frequency), len(references))

    @classmethod
    def read(cls, path: Path) -> "Frequencies":
        """A saved file.

        Raises:
            InputError: it is none.
        """
        document = read_json(path)
        if not document.has("format") or document.integer("format") != FORMAT:
            raise InputError(f"{path}: these are no document frequencies: write them with python -m tasks._cider_df")
        phrases = document.value.get("phrases")
        pictures = document.integer("pictures")
        if not 1 <= pictures <= MOST:
            raise InputError(
                f"{path}: 'pictures' is {str(pictures)[:20]}, and counts those of a set: write the file anew"
            )
        fits = isinstance(phrases, dict) and all(type(n) is int and 1 <= n <= pictures for n in phrases.values())
        if not fits or re.search("[\ud800-\udfff]", "".join(phrases)):
            raise InputError(f"{path}: 'phrases' is no object of counts up to {pictures}: write the file anew")
        return cls({tuple(phrase.split(" ")): float(count) for phrase, count in phrases.items()}, pictures)

    def write(self, path: Path) -> None:
        """Save, gzipped where the name ends in `.gz`; the same set gives the same bytes."""
        phrases = {" ".join(phrase): int(count) for phrase, count in sorted(self.counts.items())}
        text = json.dumps({"format": FORMAT, "pictures": self.pictures, "phrases": phrases}, ensure_ascii=False)
        data = text.encode()
        durable.write(path, gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def score(
    references: Sequence[Sequence[str]],
    captions: Sequence[str],
    frequencies: Frequencies | None = None,
    with_meteor: bool = False,
) -> dict[str, float]:
    """The totals of a set, from plain texts; without document frequencies CIDEr takes this set's own."""
    golds, said = tokenized(references), ptb.tokenize(captions)
    found = totals(measure(golds, said, frequencies or Frequencies.of(golds)))
    return found | ({"meteor": meteor(golds, said)} if with_meteor else {})


def tokenized(references: Sequence[Sequence[str]]) -> list[list[str]]:
    """The references of each picture, tokenized in one go."""
    flat = iter(ptb.tokenize([caption for captions in references for caption in captions]))
    return [[next(flat) for _ in captions] for captions in references]


def measure(
    references: Sequence[Sequence[str]], captions: Sequence[str], frequencies: Frequencies | None
) -> list[Measured]:
    """Each picture's caption against its references, all tokenized; CIDEr by these document frequencies."""
    from pycocoevalcap.bleu.bleu_scorer import cook_refs, cook_test
    from pycocoevalcap.rouge.rouge import Rouge

    rouge = Rouge()
    weighed = _cider(references, captions, frequencies) if frequencies else [None] * len(captions)
    measured = []
    for accepted, caption, cider in zip(references, captions, weighed, strict=True):
        bleu = cook_test(caption, cook_refs(accepted), eff="closest")
        rouge_l = float(rouge.calc_score([caption], accepted))
        measured.append(Measured(bleu["testlen"], tuple(bleu["correct"]), bleu["reflen"], rouge_l, cider))
    return measured


def _cider(references: Sequence[Sequence[str]], captions: Sequence[str], frequencies: Frequencies) -> list[float]:
    from pycocoevalcap.cider.cider_scorer import CiderScorer

    class Scorer(CiderScorer):
        """Takes the number of pictures from the frequencies, where the original counts those at hand."""

        @property
        def ref_len(self) -> float:
            return math.log(frequencies.pictures)

        @ref_len.setter
        def ref_len(self, _: float | None) -> None:
            pass

    scorer = Scorer(n=ORDERS)
    for accepted, caption in zip(references, captions, strict=True):
        scorer.cook_append(caption, accepted)
    scorer.document_frequency = defaultdict(float, frequencies.counts)
    return [float(score) for score in scorer.compute_cider()]


def totals(measured: Sequence[Measured]) -> dict[str, float]:
    """`bleu1` … `bleu4`, `rouge_l`, and `cider` where every picture has one."""
    found = {f"bleu{order}": value for order, value in enumerate(_bleu(measured), 1)}
    found["rouge_l"] = float(np.mean([one.rouge_l for one in measured]))
    ciders = [one.cider for one in measured if one.cider is not None]
    return found | ({"cider": float(np.mean(ciders))} if len(ciders) == len(measured) else {})


def _bleu(measured: Sequence[Measured]) -> list[float]:
    """Over the whole set; the two small numbers are the official code's, against division by zero."""
    tiny, small = 1e-15, 1e-9
    length, reference_length = (sum(getattr(one, name) for one in measured) for name in ("length", "reference_length"))
    ratio = (length + tiny) / (reference_length + small)
    brevity = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    product, found = 1.0, []
    for order in range(1, ORDERS + 1):
        correct = sum(one.correct[order - 1] for one in measured)
        said = sum(max(0, one.length - order + 1) for one in measured)
        product *= (correct + tiny) / (said + small)
        found.append(brevity * product ** (1 / order))
    return found


def meteor(references: Sequence[Sequence[str]], captions: Sequence[str]) -> float:
    """METEOR 1.5 over the whole set, by the jar that `pycocoevalcap` carries; it takes 20 seconds to start."""
    from pycocoevalcap.meteor.meteor import Meteor

    before = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join([str(ptb.java().parent), before])  # it calls `java`
    try:
        scorer: Any = Meteor()
    finally:
        os.environ["PATH"] = before
    names = range(len(captions))
    golds = {name: list(accepted) for name, accepted in zip(names, references, strict=True)}
    try:
        return float(scorer.compute_score(golds, {name: [captions[name]] for name in names})[0])
    finally:
        for pipe in (scorer.meteor_p.stdout, scorer.meteor_p.stderr):  # it closes what it writes to alone
            pipe.close()
