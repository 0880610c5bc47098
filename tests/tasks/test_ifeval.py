"""IFEval: the counts of its data, the implementation of lm_eval on responses that trip every rule, and bad input."""

import json
import random
from collections import Counter

import nltk
import pytest

from tasks import _instruct_files as files
from tasks.bench import task as tasks
from tasks.bench.documents import Entry
from tasks.bench.errors import InputError
from tasks.metrics import ifeval_rules as rules
from tasks.metrics import punkt_model
from tasks.metrics.ifeval import IfEval
from tasks.mini import instruct as mini

COUNTS = {
    "no_comma": 66, "number_highlighted_sections": 48, "number_words": 52, "number_sentences": 52,
    "forbidden_words": 49, "frequency": 42, "repeat_prompt": 41, "quotation": 41, "existence": 39,
    "english_lowercase": 39, "title": 37, "letter_frequency": 33, "number_bullet_lists": 31,
    "response_language": 31, "number_placeholders": 27, "number_paragraphs": 27, "end_checker": 26,
    "postscript": 26, "english_capital": 25, "capital_word_frequency": 25, "two_responses": 24, "json_format": 17,
    "multiple_sections": 14, "nth_paragraph_first_word": 12, "constrained_response": 10,
}  # fmt: skip
"""How often each type occurs in the 541 prompts, as counted elsewhere."""

SENTENCES = [
    "Dr. Smith went to the U.S. in 1984, and he stayed.",
    "What a day!",
    "the river is calm and the night is long",
    "My answer is no.",
    "Le chat est assis sur la table et regarde la rue.",
    "यह एक छोटा सा वाक्य है।",
    "SHOUT IT FROM THE ROOFTOPS, NASA AND NATO",
]


@pytest.fixture(scope="module")
def asked(shared):
    return files.read(shared / "data" / "instruct_eval" / "ifeval_input_data.jsonl", "ifeval")[0]


def response(draw: random.Random, one: files.Instruction) -> str:
    """Something that follows some of the instructions: made of what their checkers look for."""
    parts = draw.choices(SENTENCES, k=draw.choice((1, 3, 30)))
    for check in one.checks:
        for value in check.kwargs.values():
            words = value if isinstance(value, list) else [str(value)]
            parts += draw.sample(words, draw.randint(0, len(words))) * draw.choice((1, 1, 8))
        number = next((value for value in check.kwargs.values() if isinstance(value, int)), 2)
        parts += draw.choice(
            (
                [],
                ["[name]"] * number,
                ["\n* point"] * number,
                ["*bold*"] * number,
                ["<<title>>"],
                ["P.S. bye"],
                ["o"] * 9,
            )
        )
        parts += draw.choice(([], [f"\nSECTION {n} text" for n in range(number)], ["\n***\nA part."] * (number - 1)))
    draw.shuffle(parts)
    text = draw.choice((" ", "\n", "\n\n")).join(parts)
    if any(check.kind.endswith("json_format") for check in one.checks) and draw.random() < 0.5:
        return "```json\n" + json.dumps({"text": text}) + "\n```"
    shape = draw.choice(("", "", "quote", "lower", "upper", "repeat", "two", "bare", "empty", "comma"))
    made = {
        "quote": f'"{text}"',
        "lower": text.lower(),
        "upper": text.upper(),
        "repeat": f"{one.instruction}\n{text}",
        "two": f"{text}\n******\nSomething else.",
        "bare": "**Sure!**\nMy answer is maybe.\nGood bye",
        "empty": " \n",
        "comma": text.replace(",", ""),
    }.get(shape, text)
    ends = [str(check.kwargs["end_phrase"]) for check in one.checks if "end_phrase" in check.kwargs]
    ends += [str(check.kwargs["prompt_to_repeat"]) for check in one.checks if "prompt_to_repeat" in check.kwargs]
    firsts = [str(check.kwargs["first_word"]) for check in one.checks if "first_word" in check.kwargs]
    return draw.choice((made, "\n\n".join([*firsts, *ends[1:], made, *ends[:1]]), "\n".join([*ends[:1], made])))


@pytest.mark.shared
def test_the_data_has_its_counts(asked):
    kinds = [check.kind for one in asked for check in one.checks]
    assert (len(asked), len(kinds)) == (541, 834)
    assert Counter(kind.split(":")[1] for kind in kinds) == COUNTS
    assert set(kinds) == set(rules.checkers())


@pytest.mark.shared
def test_verdicts_are_those_of_lm_eval(asked):
    rules.checkers()  # which lets lm_eval find the sentence model too
    import langdetect
    from lm_eval.tasks.ifeval import utils

    langdetect.DetectorFactory.seed = 0
    draw = random.Random(0)
    seen: dict[str, set[bool]] = {}
    rare = {kind for kind, count in Counter(check.kind for one in asked for check in one.checks).items() if count < 20}
    often = [one for one in asked if rare & {check.kind for check in one.checks}]
    for one in [*asked, *often * 3]:
        said = response(draw, one)
        found = rules.judge(one.checks, said)
        kinds = [check.kind for check in one.checks]
        document = {"key": 0, "instruction_id_list": kinds, "prompt": one.instruction}
        expected = utils.process_results(document | {"kwargs": [dict(check.kwargs) for check in one.checks]}, [said])
        for place, check in enumerate(one.checks):
            if check.kwargs.get("letter") in ("#", "!"):
                continue  # no letters: these checkers draw another, and lm_eval does so unseeded
            assert found.strict[place] == expected["inst_level_strict_acc"][place], (one.id, check, said)
            assert found.loose[place] == expected["inst_level_loose_acc"][place], (one.id, check, said)
            assert found.loose[place] >= found.strict[place]
            seen.setdefault(check.kind, set()).add(found.loose[place])
    assert not {kind: verdicts for kind, verdicts in seen.items() if verdicts != {True, False}}
    assert len(seen) == 25


@pytest.mark.shared
def test_what_a_checker_draws_is_always_the_same(asked):
    drawing = [one for one in asked if any(check.kwargs.get("letter") in ("#", "!") for check in one.checks)]
    assert [one.id for one in drawing] == ["1122", "1129"]
    random.seed(5)
    state = random.getstate()
    answers = [[rules.judge(one.checks, "aa bb cc dd ee # !" * 2) for one in drawing] for _ in range(9)]
    assert all(answer == answers[0] for answer in answers)
    assert random.getstate() == state


def test_a_zero_counts():
    check = rules.Check("length_constraints:number_words", {"relation": "at least", "num_words": 0})
    assert check.passes("one")
    less = rules.Check("keywords:letter_frequency", {"letter": "z", "let_frequency": 0, "let_relation": "at least"})
    assert all(less.passes("none of them here") for _ in range(5))


def test_the_eight_readings():
    assert set(rules.generous("*a*\nb\n*c*")) == {"*a*\nb\n*c*", "a\nb\nc", "b\n*c*", "b\nc", "*a*\nb", "a\nb", "b"}
    assert len(rules.generous("*a*\nb\n*c*")) == 8


def test_the_sentence_model_needs_no_download(monkeypatch, tmp_path):
    monkeypatch.setenv("ZEROINIT_CACHE", str(tmp_path))
    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setattr(nltk, "download", lambda *_, **__: pytest.fail("nothing is to be downloaded"))
    punkt_model.provide()
    assert nltk.sent_tokenize("Dr. Smith left the U.S. in May. He was tired! Was he?") == [
        "Dr. Smith left the U.S. in May.",
        "He was tired!",
        "Was he?",
    ]


def test_the_metric_and_the_command_say_the_same(tmp_path):
    records = mini.made("ifeval", "report", 24)
    said = ["it lives in orlo, a town." if n % 2 else "Orlo Brindel Mira" for n in range(len(records))]
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    lines = [{"prompt": r["prompt"], "response": text} for r, text in zip(records, said, strict=True)]
    (tmp_path / "said.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    by_command = tasks.get("instruct").score(tmp_path / "said.jsonl", tmp_path / "asked.jsonl")
    references = [
        {"instruction_id_list": r["instruction_id_list"], "kwargs": [json.dumps(k) for k in r["kwargs"]]}
        for r in records
    ]
    assert IfEval().compute(predictions=said, references=references) == pytest.approx(by_command)
    assert list(by_command) == ["prompt_strict", "prompt_loose", "instruction_strict", "instruction_loose"]
    assert 0 < by_command["prompt_strict"] < by_command["instruction_strict"] < 100

    (tmp_path / "said.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines[1:]))
    with pytest.raises(InputError, match=r"said.jsonl: 1 of 24 prompts have no response, first that of key 0"):
        tasks.get("instruct").score(tmp_path / "said.jsonl", tmp_path / "asked.jsonl")
    (tmp_path / "said.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*lines, lines[0]]))
    with pytest.raises(InputError, match="line 25: this prompt has a response already"):
        tasks.get("instruct").score(tmp_path / "said.jsonl", tmp_path / "asked.jsonl")


@pytest.mark.parametrize(
    ("kinds", "kwargs", "sentence"),
    [
        (["punctuation:no_coma"], [{}], "f: r: there is no instruction 'punctuation:no_coma'"),
        (["punctuation:no_comma"], [], "f: r: 1 instructions have 0 kwargs"),
        ([], [], "f: r: 0 instructions have 0 kwargs"),
        (["punctuation:no_comma"], [{"letter": "a"}], r"kwargs\[0\]: these do not fit punctuation:no_comma"),
        (["combination:repeat_prompt"], [{}], r"kwargs\[0\]: these do not fit combination:repeat_prompt"),
        (["length_constraints:number_words"], [{"relation": "about", "num_words": 3}], r"these do not fit length"),
    ],
)
def test_bad_checks_are_refused(kinds, kwargs, sentence):
    record = {"key": 1, "prompt": "Do.", "instruction_id_list": kinds, "kwargs": kwargs}
    with pytest.raises(InputError, match=sentence):
        rules.Check.all_of(Entry(record, "f", "r"))


def test_without_its_checkers_it_says_how_to_get_them(monkeypatch):
    monkeypatch.setattr(rules.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"run `pip install -e '\.\[ifeval\]'`"):
        rules.checkers.__wrapped__()
