"""A Java runtime runs the tokenizer of caption metrics; nothing else needs one."""

import subprocess
from collections.abc import Iterator

from tasks.bench.doctor import Finding, Request
from tasks.bench.errors import AbsentError, InputError
from tasks.metrics import ptb


def findings(_: Request) -> Iterator[Finding]:
    """The runtime."""
    try:
        java = ptb.java()
    except AbsentError as error:
        yield Finding("absent", "java", str(error))
        return
    except InputError as error:
        yield Finding("wrong", "java", str(error))
        return
    done = subprocess.run([str(java), "-version"], capture_output=True, text=True, check=False)
    said = (done.stderr or done.stdout).strip().splitlines()
    if done.returncode or not said:
        yield Finding("wrong", "java", f"{java} does not run: set JAVA_HOME to another Java runtime")
    else:
        yield Finding("ok", "java", f"{java}, {said[0]}")
