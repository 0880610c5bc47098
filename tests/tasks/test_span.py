"""Windows and spans: offsets are the passage's own characters, and decoding is the known post-processing."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks._squad_files import Question, questions
from tasks.bench.documents import Entry
from tasks.bench.errors import InputError
from tasks.mini import squad, vocabulary
from tasks.outputs.span import SpanReader, Window, _best_shown, best_span

TOKENIZER = vocabulary.wordpiece()


def reader(max_length: int = 48, doc_stride: int = 12, max_answer_length: int = 30) -> SpanReader:
    return SpanReader(TOKENIZER, max_length, doc_stride, 20, max_answer_length)


def asked(context: str, question: str = "Where?", answer: str | None = None) -> Question:
    answers = (answer,) if answer else ()
    return Question("q", "t", context, question, answers, tuple(context.index(a) for a in answers))


LONG = asked(
    " ".join(f"{name} comes from Orlo." for name in ("Mira", "Tobin", "Alda", "Joren", "Sela", "Pavel") * 5)
    + " Nadia comes from Kasteg.",
    answer="Kasteg",
)


def test_offsets_are_characters_of_the_passage():
    text = "Mira  comes from Orlo, née Żuk."
    (window,) = reader().ask([asked(text)])
    pieces = [text[a:b].lower() for a, b in window.offsets[window.inside]]
    assert pieces[:5] == ["mira", "comes", "from", "orlo", ","]
    assert "".join(pieces) == text.lower().replace(" ", "")


@given(st.text(max_size=120), st.text(max_size=200))
@settings(max_examples=60, deadline=None)
def test_any_text_is_cut_into_windows_that_fit(context, question):
    windows = reader(32, 8).ask([asked(context, question)])
    assert windows
    assert all(len(w) <= 32 for w in windows)
    tokens = TOKENIZER(context, add_special_tokens=False)["input_ids"]
    assert sum(int(w.startable.sum()) for w in windows) == len(tokens)


def test_windows_overlap_by_the_stride_and_each_token_starts_in_one_of_them():
    windows = reader().ask([LONG])
    assert len(windows) > 3
    for one, other in itertools.pairwise(windows):
        assert one.offsets[one.inside][-12:].tolist() == other.offsets[other.inside][:12].tolist()
    starts = [tuple(pair) for w in windows for pair in w.offsets[w.startable]]
    assert len(starts) == len(set(starts))
    assert set(starts) == {tuple(pair) for w in windows for pair in w.offsets[w.inside]}


def test_the_window_with_most_context_shows_a_token_best():
    first, second = _best_shown([10, 10], 4)  # tokens 0-9 and 6-15: 7 has 2 and 1 around it, 8 has 1 and 2
    assert first.tolist() == [True] * 8 + [False] * 2
    assert second.tolist() == [False] * 2 + [True] * 8


def test_labels_are_the_answer_in_its_window_and_cls_elsewhere():
    windows = reader().fit([LONG])
    assert {w.label for w in windows[:-1]} == {(0, 0)}
    first, last = windows[-1].label
    begin, end = windows[-1].offsets[first, 0], windows[-1].offsets[last, 1]
    assert LONG.context[begin:end] == "Kasteg"


def test_every_label_of_the_world_decodes_to_its_answer():
    found, _ = questions(Entry(squad.document("fit", 60, seed=5), "w"), "v1.1")
    read = reader(64, 16)
    windows = read.fit(found)
    said = []
    for window in windows:
        scores = np.zeros((2, len(window)), dtype=np.float32)
        if window.label != (0, 0):
            scores[0, window.label[0]] = scores[1, window.label[1]] = 10
        said.append((scores[0], scores[1]))
    spans = read.decode(found, windows, said)
    assert [span.text for span in spans] == [q.answers[0] for q in found]


def test_an_unanswerable_question_points_at_cls():
    (window,) = reader().fit([asked("Mira comes from Orlo.")])
    assert window.label == (0, 0) == (window.cls, window.cls)


def test_an_answer_inside_a_word_is_labeled_with_the_whole_word():
    (window,) = reader().fit([asked("Mira owns paper.", answer="ape")])
    first, last = window.label
    assert (window.offsets[first, 0], window.offsets[last, 1]) == (10, 15)


def naive(window: Window, start, end, n_best: int, longest: int):
    """The published post-processing, written as its loops."""
    found = []
    for s in np.argsort(start)[-1 : -n_best - 1 : -1].tolist():
        for e in np.argsort(end)[-1 : -n_best - 1 : -1].tolist():
            if not window.inside[s] or not window.inside[e]:
                continue
            if e < s or e - s + 1 > longest or not window.startable[s]:
                continue
            found.append((float(start[s] + end[e]), int(window.offsets[s, 0]), int(window.offsets[e, 1])))
    return max(found, key=lambda f: f[0]) if found else None


@given(st.integers(0, 10_000), st.integers(1, 25), st.integers(1, 12))
@settings(max_examples=150, deadline=None)
def test_the_best_span_is_that_of_the_published_loops(seed, n_best, longest):
    window = reader().ask([LONG])[1]
    draw = np.random.default_rng(seed)
    start, end = draw.normal(size=(2, len(window))).astype(np.float32)
    assert best_span(window, start, end, n_best, longest) == naive(window, start, end, n_best, longest)


def decoded(context: str, scores: dict[str, tuple[float, float]], cls: float = 0.0, **fields):
    """Decode one window whose tokens score (start, end) as said, -5 elsewhere."""
    read = reader(**fields)
    (window,) = windows = read.ask([asked(context)])
    start = np.full(len(window), -5, dtype=np.float32)
    end = start.copy()
    start[window.cls] = end[window.cls] = cls
    for token, (s, e) in scores.items():
        place = next(i for i, (a, b) in enumerate(window.offsets) if window.inside[i] and context[a:b] == token)
        start[place], end[place] = s, e
    return read.decode([asked(context)], windows, [(start, end)])[0]


def test_a_span_never_ends_before_it_starts():
    span = decoded("glass iron wood", {"glass": (0, 9), "wood": (9, 1)})
    assert (span.text, span.score) == ("wood", 10.0)


def test_a_span_is_at_most_so_many_tokens():
    scores = {"glass": (9.0, 0.0), "wood": (0.0, 9.0)}
    assert decoded("glass iron wood", scores).text == "glass iron wood"
    assert decoded("glass iron wood", scores, max_answer_length=2).text in ("glass", "wood")


def test_question_and_special_tokens_are_no_answers():
    read = reader()
    context = "glass iron"
    (window,) = windows = read.ask([asked(context, question="wood")])
    start = np.where(window.inside, -1, 5).astype(np.float32)
    span = read.decode([asked(context)], windows, [(start, start)])[0]
    assert span.text in ("glass", "iron")
    assert span.null_score == pytest.approx(10 - -2)


def test_the_null_score_is_the_least_of_all_windows():
    read = reader()
    windows = read.ask([LONG])
    said = []
    for number, window in enumerate(windows):
        start = np.full(len(window), -5, dtype=np.float32)
        start[window.cls] = 3.0 - number
        said.append((start, start))
    null = 2 * (3.0 - (len(windows) - 1))
    assert read.decode([LONG], windows, said)[0].null_score == pytest.approx(null + 10)


def test_without_any_candidate_the_text_is_empty():
    read = reader()
    windows = read.ask([asked("")])
    zeros = [(np.full(len(w), 2, np.float32), np.full(len(w), 2, np.float32)) for w in windows]
    assert read.decode([asked("")], windows, zeros) == [("", 0.0, 4.0)]


def test_a_batch_is_padded_to_its_longest_and_masked():
    windows = reader().fit([asked("glass", answer="glass"), asked("glass iron wood", answer="wood")])
    batch = reader().collate(windows)
    assert batch["input_ids"].shape == (2, len(windows[1]))
    assert batch["attention_mask"].sum(1).tolist() == [len(w) for w in windows]
    assert (batch["input_ids"][batch["attention_mask"] == 0] == TOKENIZER.pad_token_id).all()
    assert batch["start_positions"].tolist() == [w.label[0] for w in windows]


def test_a_backbone_too_short_for_the_windows_is_refused():
    with pytest.raises(InputError, match="max_length is 600, but the backbone reads 512 tokens: give less"):
        reader(600, 100)
