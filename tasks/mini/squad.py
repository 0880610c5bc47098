"""A small SQuAD in the official format: passages of facts about a scene, and questions that one of them answers.

`train` is told of the fit scenes, `dev` of the report scenes, and `shift` of those with held-out things, in longer
passages and in new words. In v2.0 some questions ask about what is true, but not told.
"""

import json
import random
from pathlib import Path
from typing import Any

from tasks.bench import cache
from tasks.mini import words, world

SIZES = {"train": ("fit", 1600), "dev": ("report", 300), "shift": ("shift", 300)}
"""The split of the scenes, and the questions, of each file."""
UNANSWERABLE = {"v1.1": 0.0, "v2.0": 0.3}
SENTENCES = {False: 6, True: 8}
"""Of a usual passage and of the shift's, at most."""
ARTICLE, PASSAGE = 10, 5
"""Questions of an article, and of a passage at most."""


def folder() -> Path:
    """The files of both versions, written once into the cache."""
    return cache.made(f"mini-squad-{world.VERSION}", write)


def write(where: Path) -> None:
    """`<train, dev or shift>-<version>.json`."""
    where.mkdir(parents=True)
    for version, share in UNANSWERABLE.items():
        for name, (split, size) in SIZES.items():
            text = json.dumps(document(split, size, unanswerable=share), indent=1)
            (where / f"{name}-{version}.json").write_text(text, encoding="utf-8")


def document(split: str, questions: int, seed: int = 0, unanswerable: float = 0.0) -> dict[str, Any]:
    """So many questions about the scenes of a split; no two articles share a scene."""
    scenes = world.scenes(split, seed)
    articles, left = [], questions
    while left:
        article: dict[str, Any] = {"title": f"{split} chronicle {len(articles)}", "paragraphs": []}
        room = min(ARTICLE, left)
        while room:
            key = f"{split}-{seed}-{len(articles)}-{len(article['paragraphs'])}"
            article["paragraphs"].append(_passage(next(scenes), key, min(room, PASSAGE), unanswerable))
            room -= len(article["paragraphs"][-1]["qas"])
        left -= sum(len(paragraph["qas"]) for paragraph in article["paragraphs"])
        articles.append(article)
    return {"version": "v2.0" if unanswerable else "1.1", "data": articles}


def _passage(scene: world.Scene, key: str, questions: int, unanswerable: float) -> dict[str, Any]:
    """Some facts in any order, and questions about some of them, each once."""
    anew = world.split_of(scene) == "shift"
    draw = random.Random(f"squad {unanswerable} {scene.key}")
    told = words.chosen(scene, draw, SENTENCES[anew])
    context, starts = words.passage(told, draw, anew)
    known = {(fact.relation, fact.thing) for fact in told}
    untold = [fact for fact in words.facts(scene) if (fact.relation, fact.thing) not in known]
    asked = []
    for number, place in enumerate(draw.sample(range(len(told)), min(questions, len(told)))):
        missing = draw.random() < unanswerable
        fact = draw.choice(untold) if missing else told[place]
        answers = [] if missing else [{"text": fact.value, "answer_start": starts[place]}]
        record = {"id": f"{key}-{number}", "question": words.ask(fact, anew), "answers": answers}
        asked.append(record | ({"is_impossible": missing} if unanswerable else {}))
    return {"context": context, "qas": asked}
