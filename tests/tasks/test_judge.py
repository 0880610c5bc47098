"""Judging in pairs: against a real server on this machine, honest, biased, busy and broken."""

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tasks import _judge
from tasks.bench.commandline import guarded
from tasks.bench.errors import InputError
from tasks.metrics.pairwise import Judgment, totals, verdict

QUESTIONS = {str(n): f"Question {n}?" for n in range(6)}
GOOD = "a good answer"


def honest(text: str) -> str:
    """Prefers the good answer; neither or both is a tie."""
    first, second = (part.split("[The End")[0] for part in text.split("'s Answer]\n")[1::2])
    better = (GOOD in first) - (GOOD in second)
    return "I weigh [[A]] against [[B]]. Verdict: " + {1: "[[A]]", -1: "[[B]]", 0: "[[C]]"}[better]


@pytest.fixture
def server():
    """An endpoint whose behavior and log a test sets and reads: `say`, `failures`, `asked`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.server.asked.append((self.path, self.headers.get("Authorization"), body))
            if self.server.failures:
                self.send_response(self.server.failures.pop())
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            content = self.server.say(body["messages"][1]["content"])
            answer = json.dumps({"choices": [{"message": {"content": content}}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.say, made.failures, made.asked = honest, [], []
    made.url = f"http://127.0.0.1:{made.server_port}/v1"
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def lines(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


@pytest.fixture
def arguments(tmp_path, server, monkeypatch):
    """Ours is good where the number is even, theirs where it divides by three."""
    monkeypatch.setenv("JUDGE_KEY", "secret")
    cell = tmp_path / "cell"
    cell.mkdir()
    ours = [{"id": name, "prediction": GOOD if int(name) % 2 == 0 else "bad"} for name in QUESTIONS]
    with gzip.open(cell / "report.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(record) + "\n" for record in ours)
    theirs = [
        {"question_id": int(n), "choices": [{"index": 0, "turns": [GOOD if int(n) % 3 == 0 else "bad"]}]}
        for n in QUESTIONS
    ]
    asked = [{"question_id": int(name), "turns": [text]} for name, text in QUESTIONS.items()]
    return [
        *("--answers", str(cell), "--against", lines(tmp_path / "theirs.jsonl", theirs)),
        *("--questions", lines(tmp_path / "questions.jsonl", asked), "--model", "judge-1"),
        *("--endpoint", server.url, "--key-variable", "JUDGE_KEY", "--save", str(tmp_path / "saved.jsonl")),
    ]


def printed(capsys) -> dict:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_an_honest_judge(arguments, server, capsys, tmp_path):
    assert guarded(_judge.app, arguments) == 0
    found = printed(capsys)
    control = found.pop("control")
    # Ours good at 0, 2, 4; theirs at 0, 3.
    assert found == {"win": 2, "tie": 3, "loss": 1, "unread": 0, "win_rate": pytest.approx(350 / 6), "position_bias": 0}
    assert (control["win"], control["tie"], control["loss"]) == (0, 4, 2)
    assert len(server.asked) == 2 * 2 * len(QUESTIONS)
    path, key, body = server.asked[0]
    assert (path, key, body["model"], body["temperature"]) == ("/v1/chat/completions", "Bearer secret", "judge-1", 0)
    assert "[[C]]" in body["messages"][0]["content"]
    assert guarded(_judge.app, ["--judgments", str(tmp_path / "saved.jsonl")]) == 0
    assert printed(capsys) == found


def test_a_judge_that_looks_at_the_position_alone(arguments, server, capsys):
    server.say = lambda _: "[[A]]"
    guarded(_judge.app, arguments)
    found = printed(capsys)
    assert (found["tie"], found["win_rate"], found["position_bias"]) == (6, 50, 100)
    assert found["control"]["position_bias"] == 100


def test_a_judge_that_a_constant_answer_pleases(arguments, server, capsys):
    server.say = lambda text: "[[A]]" if _judge.CONSTANT in text.split("[The Start of Assistant B")[0] else "[[B]]"
    guarded(_judge.app, arguments)
    found = printed(capsys)
    assert found["control"]["win_rate"] == 100


def test_verdicts_that_cannot_be_read_are_counted_and_left_out(arguments, server, capsys):
    server.say = lambda text: "I cannot say." if "Question 3" in text else honest(text)
    guarded(_judge.app, arguments)
    found = printed(capsys)
    assert (found["win"], found["tie"], found["loss"], found["unread"]) == (2, 3, 0, 1)
    assert found["win_rate"] == pytest.approx(70)


def test_what_was_judged_before_the_judge_broke_is_kept(arguments, server, capsys, tmp_path):
    def breaking(text):
        server.failures = [401] if len(server.asked) == 7 else []
        return honest(text)

    server.say = breaking
    assert guarded(_judge.app, [*arguments, "--jobs", "1"]) == 2
    assert "gave no answer" in capsys.readouterr().err
    kept = [json.loads(line)["id"] for line in (tmp_path / "saved.jsonl").read_text().splitlines()]
    assert kept == ["0", "1", "2"]


def test_nobody_is_asked_where_nothing_can_be_saved(arguments, server, capsys, tmp_path):
    arguments[-1] = str(tmp_path / "absent" / "saved.jsonl")
    assert guarded(_judge.app, arguments) == 2
    assert "saved.jsonl cannot be written" in capsys.readouterr().err
    arguments[-1] = str(tmp_path / "saved.jsonl")
    (tmp_path / "saved.jsonl").write_text("paid for")
    assert guarded(_judge.app, arguments) == 2
    assert "saved.jsonl cannot be written (File exists)" in capsys.readouterr().err
    assert (tmp_path / "saved.jsonl").read_text() == "paid for"
    assert not server.asked


def test_a_busy_judge_is_asked_again(server):
    server.failures = [429, 503]
    assert _judge.chat(server.url, "m", None, patience=0.01)("s", "[[?]]'s Answer]\n'x's Answer]\n's Answer]\ny") != ""
    assert [key for _, key, _ in server.asked] == [None] * 3


def test_a_broken_judge_is_told(server):
    server.failures = [401]
    with pytest.raises(InputError, match=r"gave no answer \(HTTPError: 401 .*: check it, --model and the key"):
        _judge.chat(server.url, "m", "k")("s", "u")
    with pytest.raises(InputError, match="gave no answer"):
        _judge.chat("http://127.0.0.1:9", "m", "k", patience=0.001)("s", "u")


def test_bad_files_are_refused(arguments, tmp_path, capsys):
    short = lines(tmp_path / "short.jsonl", [{"id": "0", "text": "x"}])
    arguments[3] = short
    assert guarded(_judge.app, arguments) == 2
    assert "5 of 6 questions have no answer, first 1: add it" in capsys.readouterr().err
    assert guarded(_judge.app, ["--model", "m"]) == 2
    assert "are wanted together" in capsys.readouterr().err
    wrong = lines(tmp_path / "wrong.jsonl", [{"id": "0", "ours_first": "third", "ours_second": None}])
    assert guarded(_judge.app, ["--judgments", wrong]) == 2
    assert "line 1: 'ours_first' is 'third'; give first, second, tie or null" in capsys.readouterr().err


def test_a_win_needs_both_orders():
    outcomes = {
        ("first", "second"): "win",
        ("second", "first"): "loss",
        ("first", "first"): "tie",
        ("first", "tie"): "tie",
        ("tie", "tie"): "tie",
        (None, "second"): "unread",
    }
    assert {pair: Judgment("q", *pair).outcome for pair in outcomes} == outcomes
    assert totals([Judgment("q", None, None)]) == {"win": 0, "tie": 0, "loss": 0, "unread": 1}


def test_the_last_verdict_is_the_final_one():
    assert verdict("Not [[A]], rather [[B]]") == "second"
    assert verdict("[[C]]") == "tie"
    assert verdict("[A] is better") is None
