"""The mini world: the same from the same seed, and right about its own facts."""

import pytest

from tasks._squad_files import questions
from tasks.backbones.roberta import _tiny_tokenizer
from tasks.bench.documents import Entry
from tasks.mini import world


def test_the_seed_says_everything():
    assert world.squad(seed=4) == world.squad(seed=4)
    assert world.squad(seed=4) != world.squad(seed=5)


def test_sizes_are_as_asked_and_no_passage_is_on_both_sides():
    made = world.squad()
    parts = {role: questions(Entry(document, role), "v1.1")[0] for role, document in made.items()}
    assert {role: len(part) for role, part in parts.items()} == {"train": 160, "eval": 40}
    assert not {q.context for q in parts["train"]} & {q.context for q in parts["eval"]}
    assert not {q.title for q in parts["train"]} & {q.title for q in parts["eval"]}
    assert not {q.id for q in parts["train"]} & {q.id for q in parts["eval"]}


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_question_is_answered_by_its_own_sentence_or_not_at_all(share):
    found, _ = questions(Entry(world.squad(seed=2, train=100, unanswerable=share)["train"], "w"), "v2.0")
    for q in found:
        name = next(word.strip("?") for word in q.question.split() if word.strip("?") in world._PEOPLE)
        assert (name in q.context) == bool(q.answers)
        for text, start in zip(q.answers, q.starts, strict=True):
            sentence = q.context[: start + len(text) + 1].rsplit(". ", 1)[-1]
            assert sentence.startswith(name)
    assert sum(not q.answers for q in found) == pytest.approx(100 * share, abs=15)


def test_every_word_has_a_token_of_its_own():
    tokenizer = _tiny_tokenizer()
    for q, _ in zip(questions(Entry(world.squad()["train"], "w"), "v1.1")[0], range(40), strict=False):
        tokens = tokenizer.tokenize(q.question + " " + q.context)
        assert not any(token.startswith("##") or token == "<unk>" for token in tokens)
