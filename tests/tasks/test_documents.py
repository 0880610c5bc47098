"""JSON and JSON lines: what cannot be read is refused or left out with its place, never half read."""

import csv
import gzip
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.bench.documents import Tolerance, read_json, read_lines, read_records
from tasks.bench.errors import InputError

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.lists(values, max_size=5), st.sampled_from(["x.jsonl", "x.jsonl.gz"]), st.sampled_from(["\n", "\n\n", "\r\n"])
)
@settings(max_examples=100, deadline=None)
def test_lines_come_back_as_written(tmp_path_factory, written, name, end):
    path = tmp_path_factory.mktemp("lines") / name
    # Line separators of Unicode stay inside their string.
    text = "".join(json.dumps(value, ensure_ascii=False) + end for value in written).encode("utf-8", "surrogatepass")
    try:
        text.decode()
    except UnicodeDecodeError:
        return
    path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    assert [entry.value for entry in read_lines(path, Tolerance(0))] == written


def test_a_broken_line_is_named_or_left_out(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n\n{"a": 1,}\n{"a": 1, "b": 2, "a": 3}\n{"a": "\\u2028"}\n')
    with pytest.raises(InputError, match=r"x.jsonl: line 3, column 9 is not JSON .*, or pass --skip-bad N"):
        list(read_lines(path, Tolerance(0)))
    bad = Tolerance(2)
    assert [(entry.place, entry.value["a"]) for entry in read_lines(path, bad)] == [
        (f"{path}: line 1", 1),
        (f"{path}: line 5", "\u2028"),
    ]
    assert bad.left_out[1] == f"{path}: line 4: the key 'a' occurs twice in one object; keep one of them"


def test_a_key_twice_is_refused(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"data": {"4": 1, "4": 0}}')
    with pytest.raises(InputError, match=r"x.json: the key '4' occurs twice in one object"):
        read_json(path)


def test_texts_are_strings_alone(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"good": ["a", ""], "odd": ["a", 3], "half": ["\\ud800"], "none": "a"}')
    document = read_json(path)
    assert document.texts("good") == ["a", ""]
    for key, sentence in {
        "odd": "'odd' holds a number; give strings alone",
        "half": "'half' holds half a character",
        "none": "'none' is a string; give a list of strings",
        "lost": "there is no 'lost'; give a list of strings",
    }.items():
        with pytest.raises(InputError, match=sentence):
            document.texts(key)


def test_numbers_of_many_digits_are_one_sentence(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(f'{{"score": {"9" * 400}}}')
    with pytest.raises(InputError, match=r"x.json: 'score' is a number of too many digits"):
        read_json(path).number("score")
    path.write_text(f'{{"score": {"9" * 5000}}}')
    with pytest.raises(InputError, match=r"x.json: a number has too many digits"):
        read_json(path)
    bad = Tolerance(1)
    assert list(read_lines(path, bad)) == []
    assert bad.left_out == [f"{path}: line 1: a number has too many digits to be read; give a smaller one"]


@given(
    st.lists(
        st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8), min_size=3, max_size=3)
    )
)
@settings(max_examples=100, deadline=None)
def test_tables_come_back_as_python_wrote_them(tmp_path_factory, rows):
    made = io.StringIO(newline="")
    csv.writer(made).writerows([["a", "b", "c"], *rows])
    path = tmp_path_factory.mktemp("tables") / "x.csv.gz"
    path.write_bytes(gzip.compress(made.getvalue().encode()))
    assert [list(entry.value.values()) for entry in read_records(path, Tolerance(0))] == rows


def test_a_broken_row_is_named_or_left_out(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text('a,b\n1,"2\n3"\n4\n5,6\n')
    with pytest.raises(
        InputError, match=r"x.csv: line 4 ends a row of 1 values, not 2; correct it, or pass --skip-bad N"
    ):
        list(read_records(path, Tolerance(0)))
    bad = Tolerance(1)
    assert [entry.value for entry in read_records(path, bad)] == [{"a": "1", "b": "2\n3"}, {"a": "5", "b": "6"}]
    assert len(bad.left_out) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,a\n1,2\n", "line 1 names a column twice"),
        ('a,b\n"1"x,2\n', "line 2 is not CSV"),
        ('a,b\n"1,2\n', "line 2 is not CSV"),
        (f"a,b\n{'x' * 200_000},2\n", "line 2 is not CSV"),
    ],
)
def test_what_is_no_table_is_refused(text, said, tmp_path):
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=f"x.csv: {said}"):
        list(read_records(path, Tolerance(0)))
