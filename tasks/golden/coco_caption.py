"""Captions: what the tokenizer splits, drops and keeps, phrases said too often, references of different lengths."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from tasks.bench.golden import Case, scored
from tasks.coco_caption import Captioned
from tasks.metrics import caption_rules, ptb
from tasks.outputs.lm import Said

REFERENCES = (
    ("A red boat lies on a calm lake.", "Small red boat, tied to a pier by the lake"),
    ("Two dogs run after one (old) ball -- isn't it fun?", 'Dogs chase a "ball" in the park'),
    ("A café opens at 5 o'clock.", "people sit outside of a café in the sun"),
)
CAPTIONS = ("a red boat on a calm lake", "two dogs chase the (old) ball", "people sit at a café in the sun")
OFFICIAL = {
    **{"bleu1": 0.957453367985124, "bleu2": 0.8291789396113839, "bleu3": 0.6766307657436281},
    **{"bleu4": 0.5395431738575829, "rouge_l": 0.761678636034116, "cider": 3.085591387203658},
}
OFFICIAL_METEOR = 0.38831340648423324


def _metric() -> Mapping[str, float]:
    from tasks.metrics.captions import Captions

    said = [{"image_id": n, "caption": caption} for n, caption in enumerate(CAPTIONS)]
    references = [{"image_id": n, "captions": list(captions)} for n, captions in enumerate(REFERENCES)]
    return Captions().compute(predictions=said, references=references) or {}


def _meteor() -> Mapping[str, float]:
    return {"meteor": caption_rules.meteor(caption_rules.tokenized(REFERENCES), ptb.tokenize(CAPTIONS))}


_ASKED = [Captioned(str(n), Path(), "", each[0], each, whole=True) for n, each in enumerate(REFERENCES)]
_SAID = [Said(caption) for caption in CAPTIONS]
_PER_CENT = {name: 100 * value for name, value in OFFICIAL.items()}

BY = "the tokenizer and scorers of pycocoevalcap"
CASES = (
    Case("BLEU, ROUGE-L, CIDEr", BY, _PER_CENT, partial(scored, "coco_caption", "coco", _ASKED, _SAID), ("coco",)),
    Case("BLEU, ROUGE-L, CIDEr by evaluate", BY, OFFICIAL, _metric),
    Case("METEOR", "the jar of pycocoevalcap", {"meteor": OFFICIAL_METEOR}, _meteor, tolerance=1e-6, slow=True),
)
