"""python -m tasks.instruct judge: two sets of answers before any OpenAI-compatible judge, or judgments made elsewhere.

Prints one JSON object: wins, ties and losses of `--answers`, its win rate, how often the judge named the same position
in both orders, and under `control` the same for one constant answer: a judge that it pleases is not to be trusted.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import requests
import typer
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from tasks import _instruct_files as files
from tasks.bench import commandline as flags
from tasks.bench.documents import Entry, Tolerance, read_lines
from tasks.bench.errors import InputError
from tasks.metrics import pairwise
from tasks.metrics.pairwise import Judgment

CONSTANT = "Thank you for your question. I have given it careful thought, and the best answer is the one given here."
ANSWER_KEYS = ("prediction", "text", "output", "response")

app = flags.new_app("Judge two sets of answers to the same questions in pairs, each in both orders.")


@app.command()
def judge(
    answers: Annotated[Path | None, typer.Option(help="A cell's folder, or lines of id and answer.")] = None,
    against: Annotated[Path | None, typer.Option(help="The answers to compare with.")] = None,
    questions: Annotated[Path | None, typer.Option(help="Vicuna's question.jsonl; it defines the set.")] = None,
    model: Annotated[str | None, typer.Option(help="The judge's name at its endpoint.")] = None,
    endpoint: Annotated[str, typer.Option(help="Where the judge is.")] = "https://api.openai.com/v1",
    key_variable: Annotated[str, typer.Option(help="The environment variable that holds its key.")] = "OPENAI_API_KEY",
    jobs: Annotated[int, typer.Option(min=1, help="Questions to the judge at a time.")] = 4,
    save: Annotated[Path | None, typer.Option(help="Write the judgments there, as lines.")] = None,
    judgments: Annotated[Path | None, typer.Option(help="Judgments made before: nobody is asked.")] = None,
) -> None:
    """Ask the judge, or take judgments in, and print the totals."""
    if judgments is not None:
        print(json.dumps(pairwise.totals(read(judgments))))
        return
    if answers is None or against is None or questions is None or model is None:
        raise InputError("--answers, --against, --questions and --model are wanted together: give them, or --judgments")
    asked = {one.id: one.instruction for one in files.read(questions, "vicuna")[0]}
    ours, theirs = (_answers(path, asked) for path in (answers, against))
    ask = chat(endpoint, model, os.environ.get(key_variable))
    found = list(_kept(compare(ask, asked, ours, theirs, jobs), save))
    control = list(compare(ask, asked, dict.fromkeys(asked, CONSTANT), theirs, jobs))
    print(json.dumps(pairwise.totals(found) | {"control": pairwise.totals(control)}))


def _kept(judgments: Iterable[Judgment], file: Path | None) -> Iterator[Judgment]:
    """Each, once it is on the disk: the judge is paid, whatever comes after it. What a file holds already, stays."""
    try:
        with contextlib.nullcontext() if file is None else file.open("x", encoding="utf-8") as lines:
            for judgment in judgments:
                if lines is not None:
                    print(json.dumps(judgment._asdict()), file=lines, flush=True)
                yield judgment
    except OSError as error:
        raise InputError(f"--save {file} cannot be written ({error.strerror}): give another file") from None


def compare(
    ask: Callable[[str, str], str],
    questions: Mapping[str, str],
    ours: Mapping[str, str],
    theirs: Mapping[str, str],
    jobs: int = 1,
) -> Iterator[Judgment]:
    """One judgment a question, in their order; `ask` takes what the system and the user say."""

    def shown(question: str, first: str, second: str) -> str | None:
        text = pairwise.ASKED.format(question=question, first=first, second=second)
        return pairwise.verdict(ask(pairwise.SYSTEM, text))

    def judged(name: str) -> Judgment:
        pair = ours[name], theirs[name]
        return Judgment(name, shown(questions[name], *pair), shown(questions[name], *pair[::-1]))

    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(judged, questions)


def chat(endpoint: str, model: str, key: str | None, patience: float = 2.0) -> Callable[[str, str], str]:
    """A judge behind an OpenAI-compatible endpoint, without temperature; a busy one is asked again, ever later."""
    busy = Retry(5, backoff_factor=patience, status_forcelist=(429, 500, 502, 503, 504), allowed_methods=None)
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=busy))
    if key:
        session.headers["Authorization"] = f"Bearer {key}"

    def ask(system: str, user: str) -> str:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        body = {"model": model, "messages": messages, "temperature": 0, "max_tokens": 2048}
        try:
            answer = session.post(f"{endpoint.rstrip('/')}/chat/completions", json=body, timeout=300)
            answer.raise_for_status()
            return answer.json()["choices"][0]["message"]["content"] or ""
        except (requests.RequestException, ValueError, LookupError, TypeError) as error:
            raise InputError(
                f"--endpoint {endpoint} gave no answer ({type(error).__name__}: {error}): check it, --model and the key"
            ) from None

    return ask


def read(path: Path) -> list[Judgment]:
    """Judgments from lines of `id`, `ours_first` and `ours_second`: `first`, `second`, `tie`, or null for unread."""
    return [
        Judgment(entry.text("id"), *(_verdict(entry, key) for key in ("ours_first", "ours_second")))
        for entry in read_lines(path, Tolerance(0))
    ]


def _verdict(entry: Entry, key: str) -> str | None:
    if entry.has(key) and entry.value[key] is None:
        return None
    said = entry.text(key)
    if said not in pairwise.VERDICTS.values():
        raise InputError(f"{entry.place}: {key!r} is {said!r}; give first, second, tie or null")
    return said


def _answers(path: Path, asked: Mapping[str, str]) -> dict[str, str]:
    """An answer to each question."""
    found = dict(_told(path / "report.jsonl.gz" if path.is_dir() else path))
    if missing := [name for name in asked if name not in found]:
        raise InputError(f"{path}: {len(missing)} of {len(asked)} questions have no answer, first {missing[0]}: add it")
    return found


def _told(path: Path) -> Iterator[tuple[str, str]]:
    """Our records, lines with an answer under a usual key, or FastChat's `choices`."""
    for entry in read_lines(path, Tolerance(0)):
        named: Any = next((entry.value[key] for key in ("id", "question_id") if entry.has(key)), None)
        if named is None:
            raise InputError(f"{entry.place}: there is no 'id'; name the question")
        if entry.has("choices"):
            turns = [turn for choice in entry.entries("choices") for turn in choice.texts("turns")]
            if not turns:
                raise InputError(f"{entry.place}: there is no turn in 'choices'; give the answer")
            yield str(named), turns[0]
            continue
        key = next((key for key in ANSWER_KEYS if entry.has(key)), ANSWER_KEYS[0])
        yield str(named), entry.text(key)
