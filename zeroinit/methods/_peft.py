"""Methods whose tuner is PEFT's: it wraps some of the host's maps in place, and unloads again."""

import re
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from zeroinit.methods import Method, name_of

if TYPE_CHECKING:
    from zeroinit.host import Host


@dataclass(frozen=True)
class PeftMethod(Method):
    """Plants through a tuner of PEFT, one for all adapters of a method on a host.

    Attributes:
        mark: how the names of the tuner's parameters begin.
    """

    mark: ClassVar[str]

    def starts_closed(self) -> bool:
        """See ``Method.starts_closed``: B is zero, and factors are one."""
        return True

    @abstractmethod
    def config(self, host: "Host") -> Any:
        """PEFT's configuration for this host."""

    @staticmethod
    @abstractmethod
    def tuner() -> type:
        """PEFT's tuner."""

    def plant(self, host: "Host", name: str) -> None:
        """See ``Method.plant``.

        Raises:
            ValueError: if another method's tuner has wrapped the host already.
        """
        if other := next((method for method in host.tuners if method != name_of(self)), None):
            raise ValueError(f"PEFT's {other} is attached, and a host bears one of its methods: detach it first")
        config, tuner = self.config(host), host.tuners.get(name_of(self))
        if tuner is None:
            host.tuners[name_of(self)] = self.tuner()(host.model, {name: config}, name)
        else:
            tuner.peft_config[name] = config
            tuner.inject_adapter(host.model, name)

    def planted(self, host: "Host", name: str) -> dict[str, nn.Parameter]:
        """PEFT's own keys, without the adapter's name."""
        own = re.compile(rf"(\.{self.mark}\w+)\.{re.escape(name)}(\.|$)")
        named = ((own.subn(r"\1\2", key), parameter) for key, parameter in host.model.named_parameters())
        return {key: parameter for (key, found), parameter in named if found}

    def switch(self, host: "Host", name: str, on: bool) -> None:
        """PEFT's switches: one adapter of a tuner acts at a time."""
        tuner = host.tuners.get(name_of(self))
        if tuner is None:
            return
        if on:
            tuner.enable_adapter_layers()
            tuner.set_adapter(name)
        elif tuner.active_adapter in (name, [name]):
            tuner.disable_adapter_layers()

    def uproot(self, host: "Host", name: str) -> None:
        """Delete the adapter; the last one unloads the tuner and gives back the host's own maps."""
        tuner = host.tuners[name_of(self)]
        if list(tuner.peft_config) == [name]:
            tuner.unload()
            del host.tuners[name_of(self)]
        elif name in tuner.peft_config:  # not where `plant` came to nothing
            tuner.delete_adapter(name)

    def original(self, host: "Host", name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Without PEFT's parameters and the name it gives to the wrapped map."""
        del host, name
        return {k.replace(".base_layer.", "."): v for k, v in state.items() if f".{self.mark}" not in k}


def transposed(host: "Host", paths: list[str]) -> bool:
    """Whether these maps keep their weights as (inputs, outputs), as GPT-2's do."""
    return hasattr(host.model.get_submodule(paths[0]), "nf")
