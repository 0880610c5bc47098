"""Ways to adapt a frozen host: one frozen dataclass a file, whose fields are its hyperparameters.

A file's name is the method's name; its class is the file's one subclass of ``Method``. Installed packages add theirs
by an entry point in the group ``zeroinit.methods``, whose name is the method's and which names the class.
"""

import functools
import importlib
import importlib.util
import math
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType, UnionType
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Literal,
    Self,
    SupportsIndex,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from zeroinit.host import Host

FLOATING = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
"""The types that parameters can be of."""


@dataclass(frozen=True)
class Method(ABC):
    """What a method does to a host. ``attach`` freezes the host before, and finds out what trains after.

    Attributes:
        per_sample: whether several adapters of this method can serve one batch, a row each.
        rates: learning rates of AdamW worth trying, three for each method, so that none is tuned more than another.
        source: the user's own file that defines it; None for those of packages.
    """

    per_sample: ClassVar[bool] = False
    rates: ClassVar[tuple[float, ...]] = (1e-3, 3e-3, 1e-2)
    source: ClassVar[Path | None] = None

    def __post_init__(self) -> None:
        """Check the fields that mean the same in every method.

        Raises:
            ValueError: if one is out of its range.
        """
        length, layers, init_std, dtype = (
            getattr(self, name, None) for name in ("length", "layers", "init_std", "dtype")
        )
        if length is not None and length < 1:
            raise ValueError(f"length is the number of prompt tokens, at least 1, not {length}")
        if layers is not None and layers < 1:
            raise ValueError(f"layers counts adapted layers from the top, at least 1 (None: all), not {layers}")
        if init_std is not None and not 0 <= init_std < math.inf:
            raise ValueError(f"init_std is a standard deviation, at least 0, not {init_std}")
        if dtype is not None and getattr(torch, dtype, None) not in FLOATING:
            raise ValueError(f'dtype is a floating type of torch, as "float32", not {dtype!r}')

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        """Through its file, where no module's name leads to it: so it travels to a cell's own process."""
        return (_again, (self.source, vars(self))) if self.source is not None else super().__reduce_ex__(protocol)

    @abstractmethod
    def plant(self, host: "Host", name: str) -> None:
        """Put the method's parameters into the host, inactive."""

    @abstractmethod
    def planted(self, host: "Host", name: str) -> dict[str, nn.Parameter]:
        """What was planted, the task head apart: portable names, the same on every host of one fingerprint."""

    def switch(self, host: "Host", name: str, on: bool) -> None:  # noqa: B027
        """Let the planted parameters act, or not; by default they ask the host's state, which names what acts."""

    @abstractmethod
    def uproot(self, host: "Host", name: str) -> None:
        """Take out what was planted; the host is as before ``plant``, to the bit."""

    def values(self, host: "Host", name: str) -> Mapping[str, Tensor]:
        """The adapter's tensors, its head's included, as they are saved and loaded; writing to them is loading."""
        return host.planted(name)

    def starts_closed(self) -> bool:
        """Whether a host with these parameters new in it still computes what it did, to the bit."""
        return False

    def trains_head(self) -> bool:
        """Whether the host's task head belongs to the adapter."""
        return bool(getattr(self, "train_head", True))

    def original(self, host: "Host", name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A host's state dict with this method's traces taken out."""
        del host, name
        return state

    @classmethod
    def from_fields(cls, values: Mapping[str, Any]) -> Self:
        """A method from saved fields.

        Raises:
            ValueError: if a field is not known; the message lists the known ones.
        """
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(values) - set(known)):
            raise ValueError(f"{cls.__name__} has no field {', '.join(unknown)}; it has {', '.join(known)}")
        values = {key: tuple(cast(list[Any], v)) if isinstance(v, list) else v for key, v in values.items()}
        hints = get_type_hints(cls)
        for key, value in values.items():
            if not fits(value, hints[key]):
                raise ValueError(f"{cls.__name__}'s {key} is not to be {value!r}")
        return cls(**values)


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a field's type; a whole number is a number, and a truth value is neither."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return any(fits(value, part) for part in get_args(hint))
    if origin is Literal:
        return value in get_args(hint)
    if origin is tuple and (parts := get_args(hint))[-1] is Ellipsis:
        return isinstance(value, tuple) and all(fits(each, parts[0]) for each in cast("tuple[Any, ...]", value))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    kind = type(None) if hint is None else origin or hint
    return isinstance(value, kind) if isinstance(kind, type) else True


_FROM_FILES: dict[str, type[Method]] = {}
"""The methods of users' own files that were run in this process, by the files' names."""


def names() -> list[str]:
    """All methods: the files of this folder, and those of installed packages."""
    return sorted({*_own(), *_installed()})


def get(name: str) -> type[Method]:
    """The method of this name.

    Raises:
        ValueError: if there is none; the message lists those that are.
    """
    if name in _FROM_FILES:
        return _FROM_FILES[name]
    if name.endswith(".py"):  # its name is in somebody's adapter: no reason to look for it and run it
        raise ValueError(f"{name} is a method's own file: give it to zeroinit.methods.from_file before, or to --method")
    if name in _own():
        return _only(importlib.import_module(f"{__name__}.{name}"))
    if name in (installed := _installed()):
        return installed[name].load()
    raise ValueError(f"no method {name!r}; there are {', '.join(names())}")


def from_file(path: str | os.PathLike[str]) -> type[Method]:
    """The method that a user's own file defines. The file is run, as `python FILE` would.

    From then on saved adapters that name a file of this name are read by it.

    Raises:
        ValueError: if it defines none, or several.
    """
    path = Path(path).resolve()
    status = path.stat()
    _FROM_FILES[path.name] = _loaded(path, status.st_mtime_ns, status.st_size)
    return _FROM_FILES[path.name]


@functools.cache
def _loaded(path: Path, _modified: int, _size: int) -> type[Method]:
    """The same class for the same file: a method that went to another process and back equals itself."""
    spec = importlib.util.spec_from_file_location(f"zeroinit_method_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look up the types of their fields
    spec.loader.exec_module(module)
    method = _only(module)
    method.source = path
    return method


def name_of(method: Method) -> str:
    """The name of a method: that of its file, or of its entry point; a user's own file keeps its `.py`."""
    cls = type(method)
    if cls.source is not None:
        return cls.source.name
    package, _, name = cls.__module__.rpartition(".")
    if package == __name__:
        return name
    target = f"{cls.__module__}:{cls.__qualname__}"
    return next((point.name for point in _installed().values() if point.value == target), name)


@functools.cache
def _own() -> list[str]:
    return [path.stem for path in Path(__file__).parent.glob("[!_]*.py")]


def _installed() -> dict[str, EntryPoint]:
    return _installed_on(tuple(sys.path))


@functools.cache
def _installed_on(_places: tuple[str, ...]) -> dict[str, EntryPoint]:
    """Read once for a path: it takes as long as opening every installed package's list."""
    return {point.name: point for point in entry_points(group=__name__)}


def _only(module: ModuleType) -> type[Method]:
    own = (c for c in vars(module).values() if isinstance(c, type) and c.__module__ == module.__name__)
    found = [cls for cls in own if issubclass(cls, Method)]
    if len(found) != 1:
        raise ValueError(f"{module.__file__} defines {len(found)} methods, where one belongs")
    return found[0]


def _again(source: Path, values: Mapping[str, Any]) -> Method:
    return from_file(source)(**values)
