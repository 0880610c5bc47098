"""Every metric says of made-up answers what the official script says of them."""

from collections.abc import Iterator

from tasks.bench import discover, golden
from tasks.bench.doctor import Finding, Request
from tasks.bench.errors import AbsentError, InputError


def findings(request: Request) -> Iterator[Finding]:
    """One a case of each task."""
    for task in discover.names("task"):
        try:
            cases = golden.cases(task)
        except Exception as error:  # the other tasks may be right
            yield Finding("wrong", f"metrics of {task}", f"{type(error).__name__}: {error}")
            continue
        if not cases:
            yield Finding("wrong", f"metrics of {task}", f"nothing tests them: write tasks/golden/{task}.py")
        for case in cases:
            yield _tried(f"metrics of {task}, {case.name}", case, request)


def _tried(name: str, case: golden.Case, request: Request) -> Finding:
    if case.slow and not request.slow:
        return Finding("absent", name, "not tried, for it takes half a minute: add --slow")
    try:
        trouble = case.trouble()
    except AbsentError as error:
        return Finding("absent", name, str(error))
    except InputError as error:
        return Finding("wrong", name, str(error))
    if trouble:
        return Finding("wrong", name, f"{trouble}: do not trust its numbers, and reinstall or update this package")
    return Finding("ok", name, f"as by {case.by}")
