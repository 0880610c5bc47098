"""Instructions: formats, held-out parts, numbers against transformers' own loss, and every data set from end to end."""

import gzip
import json
import math

import datasets
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tasks import _instruct_files as files
from tasks.bench import task as tasks
from tasks.bench.config import Choice
from tasks.bench.errors import InputError
from tasks.bench.overlap import WORDS, shares_a_run
from tasks.bench.run import build, run
from tasks.bench.store import Store
from tasks.bench.suite import single
from tasks.metrics.rouge import RougeL
from tasks.metrics.rouge_rules import rouge_l
from tasks.mini import instruct as mini

SMALL = {"steps": 2, "batch_size": 4, "fit_sample": 4, "eval_batch_size": 8, "max_length": 256, "max_new_tokens": 0}
TASK = tasks.get("instruct")


def cell(method="zero_init", settings=None, **flags):
    choice = Choice("instruct", "llama", method, **{"device": "cpu"} | flags)
    return single(choice, SMALL | {"report_share": 0.1, "tune_share": 0.1} | (settings or {}))


@pytest.fixture
def alpaca(tmp_path):
    path = tmp_path / "alpaca_data.json"
    path.write_text(json.dumps(mini.made("alpaca", "fit", 320)))
    return path


def test_the_templates_are_alpacas():
    assert files.Instruction("", "Add.", "1 and 2").prompt == (
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
        "response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1 and 2\n\n"
        "### Response:"
    )
    assert files.Instruction("", "Say {this}.").prompt == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\nSay {this}.\n\n### Response:"
    )


def test_every_form_of_a_file_is_read_alike(tmp_path):
    records = [
        {"instruction": "Add.", "input": "1 and 2", "output": "3"},
        {"instruction": "Greet.", "output": "Hi"},
        {"instruction": "Greet.", "input": "", "output": "Hi"},
        {"instruction": "Say nothing.", "input": "", "output": ""},
    ]
    whole = json.dumps(records)
    lines = "\n".join(json.dumps(record) for record in records)
    table = pd.DataFrame(records).fillna("").to_csv(index=False)
    found = []
    forms = {
        "a.json": whole,
        "b.json.gz": whole,
        "c.jsonl": lines,
        "d.jsonl.gz": lines,
        "e.csv": table,
        "f.csv.gz": table,
    }
    for name, text in forms.items():
        path = tmp_path / name
        path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
        found.append(files.read(path, "alpaca"))
    assert all(each == found[0] for each in found)
    instructions, bad = found[0]
    assert not bad
    assert [one.target for one in instructions] == ["3", "Hi", "Hi", ""]
    assert instructions[2].id == f"{instructions[1].id}-2"
    assert instructions[1].group == instructions[2].group


@pytest.mark.parametrize(
    ("kind", "text", "sentence"),
    [
        ("alpaca", '{"data": []}', r"a.json: this is no list of records; give one, or JSON lines"),
        ("alpaca", "[]", r"a.json: there is no usable record; give a file in the format of alpaca"),
        ("alpaca", '[{"instruction": "Do", "output": "x"}, {"output": "x"}]', r"\[1\]: there is no 'instruction'"),
        ("alpaca", '[{"instruction": " ", "output": "x"}]', r"\[0\]: 'instruction' is empty; say what is to be done"),
        ("alpaca", '[{"instruction": "Do", "output": 3}]', r"\[0\]: 'output' is a number; give a string"),
        ("alpaca", "[3]", r"\[0\]: "),
        ("alpaca", '[{"instruction": "Do"', r"a.json: line 1, column 22 is not JSON"),
        ("vicuna", '[{"question_id": 1, "turns": []}]', r"\[0\]: there is no question in 'turns'"),
        ("self_instruct", '[{"id": "a", "instruction": "Do", "instances": []}]', r"\[0\]: there is no instance"),
    ],
)
def test_bad_records_are_refused_by_place(tmp_path, kind, text, sentence):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=sentence):
        files.read(tmp_path / "a.json", kind)


def test_so_many_bad_records_are_left_out_and_listed(tmp_path):
    good = {"question_id": 1, "turns": ["Why?"]}
    path = tmp_path / "q.jsonl"
    path.write_text("\n".join([json.dumps(good), "{", json.dumps(good), json.dumps(good | {"question_id": 2})]))
    found, bad = files.read(path, "vicuna", skip_bad=2)
    assert [one.id for one in found] == ["1", "2"]
    assert len(bad) == 2
    assert "line 3: the id '1' occurs twice" in bad[1]
    with pytest.raises(InputError, match=r"--skip-bad N"):
        files.read(path, "vicuna", skip_bad=1)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("alpaca", "alpaca/alpaca_data.json.gz"),
        ("self_instruct", "instruct_eval/self_instruct_user_oriented.jsonl"),
        ("vicuna", "instruct_eval/vicuna_bench_question.jsonl"),
    ],
)
def test_the_official_files_have_their_sizes(shared, kind, name):
    found, bad = files.read(shared / "data" / name, kind)
    assert (len(found), bad) == (files.SIZES[kind], [])
    assert files.official(shared / "data", kind) == shared / "data" / name
    if kind == "alpaca":
        assert (sum(bool(one.input) for one in found), sum(not one.target for one in found)) == (20_074, 49)


def test_the_hub_gives_the_same(monkeypatch, alpaca):
    rows = json.loads(alpaca.read_text())
    monkeypatch.setattr(
        datasets, "load_dataset", lambda name, split: {("tatsu-lab/alpaca", "train"): rows}[name, split]
    )
    assert files.from_hub("alpaca") == files.read(alpaca, "alpaca")[0]
    with pytest.raises(InputError, match="vicuna is not on the hub: pass --eval FILE, or --data FOLDER"):
        files.from_hub("vicuna")
    monkeypatch.undo()
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: (_ for _ in ()).throw(OSError("no network")))
    with pytest.raises(InputError, match=r"to be had from the hub \(no network\): pass --train FILE"):
        files.from_hub("alpaca")


def test_the_held_out_part_is_the_same_whoever_learns(alpaca, tmp_path):
    data = TASK.load(cell(train=alpaca))
    groups = [{one.group for one in part} for part in (data.fit, data.tune, data.report)]
    assert all(groups)
    assert not (groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2])
    assert sum(map(len, (data.fit, data.tune, data.report))) == 320
    assert data.expected == 320  # one file: the row says partial
    frozen = TASK.load(cell("frozen", train=alpaca))
    assert [one.id for one in frozen.report] == [one.id for one in data.report]
    assert (frozen.fit, frozen.tune) == ([], [])
    turned = tmp_path / "turned.json"
    turned.write_text(json.dumps(json.loads(alpaca.read_text())[::-1]))
    assert {one.id for one in TASK.load(cell(train=turned)).report} == {one.id for one in data.report}


def test_a_file_of_its_own_is_reported_whole(alpaca, tmp_path):
    other = tmp_path / "other.json"
    other.write_text(json.dumps([{"instruction": f"Count to {n}.", "output": "1"} for n in range(7)]))
    data = TASK.load(cell(train=alpaca, eval=other))
    assert (len(data.report), data.expected) == (7, 7)
    assert len(data.fit) + len(data.tune) == 320
    assert len(TASK.load(cell("frozen", eval=other)).report) == 7
    same = TASK.load(cell(train=alpaca, eval=alpaca))
    assert not {one.id for one in same.fit} & {one.id for one in same.report}


def test_near_duplicates_are_told(alpaca, tmp_path):
    first = json.loads(alpaca.read_text())[0]
    other = tmp_path / "other.json"
    other.write_text(json.dumps([first | {"instruction": "Something else?"}, {"instruction": "New.", "output": "Yes"}]))
    data = TASK.load(cell(train=alpaca, eval=other))
    assert [one.near_duplicate for one in data.report] == [True, False]
    assert f"1 of 2 report records share {WORDS} words in a row with the fit split" in data.notes


@given(
    st.lists(st.sampled_from(["a", "b", "c"]), min_size=WORDS, max_size=30),
    st.lists(st.sampled_from(["a", "b", "c"]), max_size=40),
    st.integers(0, 17),
)
def test_shared_runs_are_found(words, others, cut):
    run_of = " ".join(words)
    held = " ".join(words[cut % (len(words) - WORDS + 1) :][:WORDS]).upper() + "!"
    assert shares_a_run([run_of], [" ".join(others), f"x {held} y"]) == [True]
    expected = any(words[at : at + WORDS] == others[to : to + WORDS] for at in range(len(words) - WORDS + 1)
                   for to in range(len(others) - WORDS + 1))  # fmt: skip
    assert shares_a_run([run_of], [" ".join(others)]) == [expected]
    assert shares_a_run([" ".join(words[: WORDS - 1])], [run_of]) == [False]


def test_rouge_is_the_papers():
    """Lin 2004, section 3.2: a longest common subsequence of 3 of 4 words; and words are stemmed."""
    assert rouge_l("police ended the gunman", "police killed the gunman") == pytest.approx(75)
    assert rouge_l("police kills the gunman", "police killed the gunman") == pytest.approx(100)
    assert rouge_l("the gunman kill police", "police killed the gunman") == pytest.approx(50)
    found = RougeL().compute(predictions=["a b", ""], references=["a b", "c"])
    assert found == {"rouge_l": pytest.approx(50)}


def test_the_likelihood_is_transformers_own(alpaca, tmp_path):
    """The frozen cell's numbers from one unpadded sequence at a time; a closed adapter starts from the same."""
    config = cell("frozen", train=alpaca)
    host = build(config, "lm")
    data = TASK.load(config)
    nll = tokens = 0.0
    for one in data.report:
        given, after = host.tokenizer(one.prompt)["input_ids"], host.tokenizer(one.target, add_special_tokens=False)
        answer = [*after["input_ids"], host.tokenizer.eos_token_id]
        labels = torch.tensor([[-100] * len(given) + answer])
        with torch.no_grad():
            nll += host.model(torch.tensor([given + answer]), labels=labels).loss.item() * len(answer)
        tokens += len(answer)
    store = Store(tmp_path / "store")
    said = {row["metric"]: row["value"] for row in store.rows_of(run(config, store).name)}
    assert said["nll"] == pytest.approx(nll / tokens, rel=1e-5)
    assert said["perplexity"] == pytest.approx(math.exp(nll / tokens), rel=1e-4)
    size = sum(len(one.target.encode()) for one in data.report)
    assert said["bits_per_byte"] == pytest.approx(nll / math.log(2) / size, rel=1e-5)
    assert run(cell(train=alpaca), store).result["facts"]["step0_distance"] == 0.0


@pytest.mark.parametrize("dataset", TASK.datasets)
def test_every_data_set_runs_from_end_to_end(dataset, tmp_path):
    store = Store(tmp_path / "store")
    config = cell(dataset=dataset, settings={"max_new_tokens": 5})
    result = run(config, store).result
    scores = result["splits"]["report"]["scores"]
    assert set(TASK.headline[dataset]) <= set(scores)
    records = store.records(config.cell, "report")
    assert {key: list(score) for key, score in TASK.metrics(records, dataset).items()} == scores
    assert all("prediction" in record and record["answer_tokens"] <= 5 for record in records)
    assert result["splits"]["report"]["truncated"] == sum(record["truncated"] for record in records)
    assert result["facts"]["status"] == "done"
    assert not any("instruction" in record or "prompt" in record for record in records)


def test_what_was_cut_is_counted_and_kept_out_of_bits_a_byte(alpaca, tmp_path):
    store = Store(tmp_path / "store")
    records = [{"instruction": "Say Orlo.", "output": "Orlo " * n} for n in (1, 1, 90)]
    other = tmp_path / "other.json"
    other.write_text(json.dumps(records))
    name = run(cell("frozen", eval=other, settings={"max_length": 96}), store).name
    found = store.records(name, "report")
    assert [record["truncated"] for record in found] == [False, False, True]
    assert store.result(name)["splits"]["report"]["truncated"] == 1
    bits = sum(record["nll"] for record in found[:2]) / math.log(2) / sum(record["bytes"] for record in found[:2])
    assert TASK.metrics(found, "alpaca")["bits_per_byte"].value == pytest.approx(bits)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"max_length": 8}, "max_length is 8: give 32 or more"),
        ({"max_new_tokens": -1}, "max_new_tokens is -1: give 0 or more"),
        ({"temperature": -0.5}, "temperature is -0.5: give 0 or more"),
        ({"top_p": 0.0}, "top_p is 0.0: give a share above 0, up to 1"),
        ({"num_beams": 0}, "num_beams is 0: give 1 or more"),
        ({"report_share": 1.0}, "report_share is 1.0: give a share from 0 up to 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, sentence):
    with pytest.raises(InputError, match=sentence):
        cell(settings=settings)


def test_what_is_missing_is_told_with_its_remedy(alpaca, tmp_path):
    with pytest.raises(InputError, match="max_new_tokens is 0, but ifeval is about answers: give 1 or more"):
        TASK.reader(None, cell(dataset="ifeval", settings={"max_new_tokens": 0}))
    with pytest.raises(InputError, match=r"report_share = 0.0 leaves nothing to report: raise it, or give --eval"):
        TASK.load(cell(train=alpaca, settings={"report_share": 0.0}))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no alpaca_data.json or alpaca_data.json.gz: add it, or name the file"):
        TASK.sources(cell("frozen", data=tmp_path / "empty"))
    with pytest.raises(InputError, match=r"holds no vicuna_bench_question.jsonl or question.jsonl: add it"):
        TASK.sources(cell(dataset="vicuna", method="frozen", data=tmp_path / "empty"))
    assert TASK.sources(cell(data=tmp_path)) == {"train": alpaca}
