"""What is attached to a model: its adapters, which of them act, and whose task head is in place."""

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zeroinit.methods import Method
from zeroinit.prompts import LayerPrompts, Switch
from zeroinit.seams import Seam, seam_of
from zeroinit.tree import children

Names = tuple[str | None, ...]


class Host(nn.Module):
    """What is attached to a model; the model holds it as its child ``zeroinit``.

    Attributes:
        model: the user's model; it and the seam stand outside the module tree, which would be a circle.
        seam: how its library is reached.
        switch: the state shared with all planted prompts.
        methods: the adapters by name.
        parked: the task heads that are not in the host's place for them.
        kept: values that methods keep aside, by adapter and parameter.
        exchanged: the adapters whose kept values are in the host now, and the host's own aside.
        tuners: PEFT's tuners, by method.
        pauses: one token for each ``disabled`` that is open.
        paused: what was active before the first of them.
    """

    model: nn.Module
    seam: Seam

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.__dict__["model"] = model
        self.__dict__["seam"] = seam_of(model)
        self.projectors = nn.ModuleDict()
        self.parked = nn.ModuleDict()
        self.switch = Switch(projectors=self.projectors)
        self.methods: dict[str, Method] = {}
        self.kept: dict[str, dict[str, Tensor]] = {}
        self.exchanged: set[str] = set()
        self.tuners: dict[str, Any] = {}
        self.required_grad = {name: p.requires_grad for name, p in model.named_parameters()}
        self.head_path: str | None = self.seam.head_name()
        self.heads: dict[str | None, Any] = {}
        self.pauses: list[object] = []
        self.paused: Names = ()
        if self.head_path is not None:
            self.heads[None] = _Held(model.get_submodule(self.head_path))

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles take along: no `disabled` that is open here, for none would end it there."""
        return {**self.__dict__, "pauses": [], "paused": ()}

    @property
    def active(self) -> Names:
        """The adapter of the batch, or one for each of its samples; empty: none."""
        return self.switch.state.names

    def adopt_head(self) -> None:
        """Take in a task head that was put into the host's place for it after ``attach``.

        Raises:
            ValueError: if it cannot be told whose head it is.
        """
        place = self.head_path or self.seam.head_name()
        if place is None:
            return
        head = self.model.get_submodule(place)
        if isinstance(head, PerSampleHead) or any(held.module is head for held in self.heads.values()):
            return
        if self.head_path is None:  # timm keeps an Identity where a model without classes has its head
            self.head_path, self.heads[None] = place, _Held(nn.Identity())
            self.heads |= {name: _Held(head) for name in self.adapters(self.active) if self.methods[name].trains_head()}
        owners = [name for name in self.adapters(self.active) if name in self.heads]
        if len(owners) != 1 or len(self.active) != 1 or not any(True for _ in head.parameters()):
            raise ValueError(
                f"the task head at .{place} was replaced after `attach`: replace it before, or with one "
                "adapter active that trains a head"
            )
        self.heads[owners[0]].module = head

    def adapters(self, names: Iterable[str | None]) -> list[str]:
        """The distinct adapters among names, in order."""
        return list(dict.fromkeys(name for name in names if name is not None))

    def one(self, name: str | None) -> str:
        """The adapter of this name, by default the active one.

        Raises:
            ValueError: if there is no such adapter, or not exactly one is active and none is named.
        """
        if name is None:
            active = self.adapters(self.active)
            if len(active) != 1:
                raise ValueError(f"{len(active)} adapters are active: name the one that is meant")
            (name,) = active
        known(self, [name])
        return name

    def head_of(self, name: str | None) -> nn.Module | None:
        """The task head that an adapter runs with: its own, else the host's."""
        held = self.heads.get(name) or self.heads.get(None)
        return held.module if held else None

    def planted(self, name: str) -> dict[str, nn.Parameter]:
        """Everything that belongs to an adapter, its head included, under portable names."""
        found = dict(self.methods[name].planted(self, name))
        if name in self.heads:
            found |= {f"head.{key}": p for key, p in self.heads[name].module.named_parameters()}
        return found

    def act(self, names: Names) -> None:
        """Let these adapters act, with their heads in place, and no others."""
        acting = self.adapters(names)
        for name in [name for name in self.methods if name not in acting] + acting:
            self.methods[name].switch(self, name, name in acting)
        self.switch.set(names=names)
        self.forget()
        self._place_head(names)

    def forget(self) -> None:
        """Clear the cached keys and values of every prompt."""
        for module in self.model.modules():
            if isinstance(module, LayerPrompts):
                module.cache.clear()

    def train_only(self, names: Names) -> None:
        """Gradients for what these adapters planted; none for anything else."""
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        for name in self.adapters(names):
            for parameter in self.planted(name).values():
                parameter.requires_grad_(parameter.is_floating_point())

    def own_head(self, name: str) -> None:
        """Give an adapter a head of its own, starting from the host's."""
        if self.methods[name].trains_head() and self.heads:
            self.heads[name] = _Held(copy.deepcopy(self.heads[None].module))
            self.parked.add_module(f"of_{name}", self.heads[name].module)

    def drop_head(self, name: str) -> None:
        """Forget an adapter's head."""
        self.heads.pop(name, None)
        children(self.parked).pop(f"of_{name}", None)

    def _place_head(self, names: Names) -> None:
        """Put the heads that these names run with into the host's place, and park the others."""
        if self.head_path is None:
            return
        wanted: dict[str | None, nn.Module] = {name: self.heads[name].module for name in names if name in self.heads}
        if not wanted or any(name not in wanted for name in names):
            wanted[None] = self.heads[None].module
        head = next(iter(wanted.values())) if len(wanted) == 1 else PerSampleHead(names, wanted)
        parent, _, child = self.head_path.rpartition(".")
        setattr(self.model.get_submodule(parent), child, head)
        children(self.parked).clear()
        for name, held in self.heads.items():
            if name not in wanted:
                self.parked.add_module("host" if name is None else f"of_{name}", held.module)


class _Held:
    """A reference to a module that keeps it out of the holder's module tree."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module


class PerSampleHead(nn.Module):
    """The heads of several adapters: each row of the batch goes through its adapter's."""

    def __init__(self, names: Names, heads: dict[str | None, nn.Module]) -> None:
        super().__init__()
        self.names = tuple(name if name in heads else None for name in names)
        self.keys: dict[str | None, str] = {}
        for name, head in heads.items():
            self.keys[name] = "host" if name is None else f"of_{name}"
            self.add_module(self.keys[name], head)

    def forward(self, tokens: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Run each head on all rows, and keep its own."""
        repeats = tokens.shape[0] // len(self.names)
        output = None
        for name, key in self.keys.items():
            rows = torch.tensor([own == name for own in self.names], device=tokens.device)
            rows = rows.repeat_interleave(repeats)
            result = self.get_submodule(key)(tokens, *args, **kwargs)
            rows = rows.view(-1, *[1] * (result.dim() - 1))
            output = result if output is None else torch.where(rows, result, output)
        assert output is not None
        return output


def known(host: Host, names: Sequence[str]) -> None:
    """Refuse names that no adapter has.

    Raises:
        ValueError: if there is one.
    """
    for name in names:
        if name not in host.methods:
            raise ValueError(f"no adapter {name!r} is attached; there are {', '.join(host.methods)}")
