"""A hub in trouble, mocked as a server: what may pass is waited for and said, what will not is told in one sentence."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tasks.bench import hub as rules

SCRIPT = """
from pathlib import Path
from huggingface_hub import hf_hub_download
from tasks.bench import hub
hub.PAUSES = (0.1, 0.2)
found = hub.asked(lambda: hf_hub_download("some/model", "file.txt", etag_timeout=2), "the model is nowhere", "give it")
print(Path(found).read_text())
"""
ABSENT = "the model is nowhere to be had from the hub"


class Hub(ThreadingHTTPServer):
    """Answers for one file, after so much trouble of one kind."""

    trouble = ""
    times = 0

    def handle_error(self, *_) -> None:
        """A client that went away is the test's own."""


class Asked(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        if self.path == "/":  # only whether it is there
            self.send_response(200)
            self.end_headers()
        elif self.server.times:
            self.server.times -= 1
            self._fail(self.server.trouble)
        else:
            self._serve(b"")

    def do_GET(self) -> None:
        self._serve(b"content")

    def _fail(self, trouble: str) -> None:
        if trouble.isdigit():
            self.send_response(int(trouble))
            self.end_headers()
        elif trouble == "late":
            threading.Event().wait(4)
        else:
            self.connection.close()

    def _serve(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("ETag", '"a1"')
        self.send_header("X-Repo-Commit", "c" * 40)
        self.send_header("Content-Length", "7")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        """Nothing."""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub(("127.0.0.1", 0), Asked) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def asked(hub: Hub, home: object) -> subprocess.CompletedProcess[str]:
    own = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
    own |= {"no_proxy": "*", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    return subprocess.run([sys.executable, "-c", SCRIPT], env=os.environ | own, capture_output=True, text=True)


@pytest.mark.parametrize("trouble", ["late", "503", "gone"])
def test_what_may_pass_is_asked_again(trouble, hub, tmp_path):
    hub.trouble, hub.times = trouble, 1
    done = asked(hub, tmp_path)
    assert done.stdout.split() == ["content"], done.stderr


def test_each_pause_is_waited_and_said(monkeypatch, capsys):
    waited = []
    monkeypatch.setattr(rules, "prepare", lambda: True)
    monkeypatch.setattr(rules.time, "sleep", waited.append)
    answers = iter([TimeoutError(), ConnectionError("lost\nmore"), "content"])

    def load() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert rules.asked(load, "it is nowhere", "give it") == "content"
    assert waited == list(rules.PAUSES)
    assert capsys.readouterr().err.splitlines() == [
        "the hub: TimeoutError; asking again in 2 s",
        "the hub: lost; asking again in 8 s",
    ]


def test_what_stays_is_explained(hub, tmp_path):
    hub.trouble, hub.times = "gone", 10**6
    done = asked(hub, tmp_path)
    assert done.stderr.count("asking again in") == 2
    assert ABSENT in done.stderr.splitlines()[-1]
    assert done.stderr.splitlines()[-1].endswith("): give it")


def test_what_is_not_there_is_not_asked_for_twice(hub, tmp_path):
    hub.trouble, hub.times = "404", 10**6
    done = asked(hub, tmp_path)
    assert "asking again" not in done.stderr
    assert ABSENT in done.stderr.splitlines()[-1]
