"""Python and every package are of a version that `pyproject.toml` asks for, and fit each other."""

import platform
import tomllib
from collections.abc import Iterator, Sequence
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tasks.bench.doctor import Finding, Request
from tasks.bench.provenance import ROOT

NAME = "zeroinit"


def findings(_: Request) -> Iterator[Finding]:
    """What is wrong with each package that is needed; each extra."""
    python, needed, extras = wanted()
    if platform.python_version() not in SpecifierSet(python):
        yield Finding("wrong", "python", f"this is {platform.python_version()}: use one that is {python}")
    troubles = [trouble for each in needed if (trouble := unmet(each))]
    troubles += [trouble for each in needed for trouble in clashes(each.name)]
    for trouble in troubles:
        yield Finding("wrong", "packages", trouble)
    if not troubles:
        yield Finding("ok", "packages", f"Python {platform.python_version()} and the {len(needed)} that are needed")
    for name, parts in extras.items():
        missing = [trouble for each in parts if each.name != NAME and (trouble := unmet(each))]
        how = f"{'; '.join(missing)}; all of it: pip install -e '.[{name}]'"
        yield Finding("absent" if missing else "ok", f"extra {name}", how if missing else "installed")


def wanted() -> tuple[str, list[Requirement], dict[str, list[Requirement]]]:
    """The Python, the packages, and those of each extra: by pyproject.toml in a clone, else as it was installed."""
    file = ROOT / "pyproject.toml"
    if file.is_file() and (project := tomllib.loads(file.read_text(encoding="utf-8")).get("project", {})):
        extras = {name: list(map(Requirement, parts)) for name, parts in project["optional-dependencies"].items()}
        return project["requires-python"], list(map(Requirement, project["dependencies"])), extras
    about = metadata.metadata(NAME)
    parts = [Requirement(line) for line in about.get_all("Requires-Dist") or []]
    needed = [each for each in parts if not each.marker or each.marker.evaluate({"extra": ""})]
    names = about.get_all("Provides-Extra") or []
    extras = {
        name: [each for each in parts if each not in needed and each.marker and each.marker.evaluate({"extra": name})]
        for name in names
    }
    return next(iter(about.get_all("Requires-Python") or [""])), needed, extras


def unmet(wish: Requirement) -> str | None:
    """Why a requirement is not met, and what to do; None: it is."""
    there = _version(wish.name)
    plain = f"{wish.name}{wish.specifier}"
    if there is None:
        return f"{wish.name} is not installed: pip install '{plain}'"
    if not wish.specifier.contains(there, prereleases=True):
        return f"{wish.name} is {there}: pip install '{plain}'"
    return None


def clashes(name: str) -> Sequence[str]:
    """Where an installed package wants another version of one that is there, as torchvision does of torch."""
    try:
        lines = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return []
    wishes = [each for each in map(Requirement, lines) if not each.marker or each.marker.evaluate({"extra": ""})]
    return [
        f"{name} {_version(name)} wants {each.name}{each.specifier}, which is {there}: install both anew, together"
        for each in wishes
        if (there := _version(each.name)) and not each.specifier.contains(there, prereleases=True)
    ]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
