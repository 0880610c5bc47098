"""Full fine-tuning: every parameter of the host trains."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from zeroinit.methods import Method

if TYPE_CHECKING:
    from zeroinit.host import Host


@dataclass(frozen=True)
class Full(Method):
    """Train the host's own parameters in place; the originals are kept aside and come back on ``detach``."""

    rates: ClassVar[tuple[float, ...]] = (3e-5, 1e-4, 3e-4)

    def starts_closed(self) -> bool:
        """See ``Method.starts_closed``: the values are the host's."""
        return True

    def plant(self, host: "Host", name: str) -> None:
        """Keep a copy of every parameter below the head: this adapter's values while it is inactive."""
        host.kept[name] = {key: p.detach().clone() for key, p in self.planted(host, name).items()}

    def planted(self, host: "Host", name: str) -> dict[str, nn.Parameter]:
        """The host's parameters under their own names, whatever PEFT has wrapped since."""
        del name
        head = f"{host.seam.head_name()}."
        named = ((key.replace(".base_layer.", "."), p) for key, p in host.model.named_parameters())
        return {
            key: parameter
            for key, parameter in named
            if key in host.required_grad and parameter.is_floating_point() and not key.startswith(head)
        }

    def switch(self, host: "Host", name: str, on: bool) -> None:
        """Exchange the host's values with those aside; turning on what is on changes nothing."""
        if on == (name in host.exchanged):
            return
        (host.exchanged.add if on else host.exchanged.discard)(name)
        with torch.no_grad():
            for key, parameter in self.planted(host, name).items():
                aside = host.kept[name][key]
                aside_now = parameter.detach().clone()
                parameter.copy_(aside)
                host.kept[name][key] = aside_now

    def uproot(self, host: "Host", name: str) -> None:
        """See ``Method.uproot``."""
        self.switch(host, name, False)
        del host.kept[name]

    def values(self, host: "Host", name: str) -> Mapping[str, Tensor]:
        """The trained values, wherever they are now."""
        if name in host.exchanged:
            return host.planted(name)
        return {**host.planted(name), **host.kept[name]}
