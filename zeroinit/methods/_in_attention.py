"""Methods that plant a module in each of the topmost attention modules, where it acts in their forward passes."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from zeroinit.methods import Method
from zeroinit.prompts import LayerPrompts
from zeroinit.seams import Site
from zeroinit.tree import children, ours, remove_ours

if TYPE_CHECKING:
    from zeroinit.host import Host


@dataclass(frozen=True)
class InAttention(Method):
    """What these methods share: where their modules go, what they are called, and how they come out."""

    @abstractmethod
    def module(self, site: Site, device: torch.device) -> nn.Module:
        """The module of one attention."""

    def sites(self, host: "Host") -> list[Site]:
        """Where to plant: the topmost ``layers``."""
        return host.seam.top(getattr(self, "layers", None))

    def plant(self, host: "Host", name: str) -> None:
        """See ``Method.plant``."""
        for site in self.sites(host):
            prompts = ours(site.module)
            if prompts is None:
                prompts = LayerPrompts(site.projection, host.switch)
                prompts.train(site.module.training)
                site.module.add_module("zeroinit", prompts)
            prompts.add_module(name, self.module(site, site.device))
        host.seam.open()

    def planted(self, host: "Host", name: str) -> dict[str, nn.Parameter]:
        """``layers.{index}.prompt`` and the like, the index counted from the host's lowest attention."""
        found: dict[str, nn.Parameter] = {}
        for index, site in enumerate(host.seam.sites()):
            prompts = ours(site.module)
            if isinstance(prompts, LayerPrompts) and name in children(prompts):
                parameters = prompts.get_submodule(name).named_parameters()
                found |= {f"layers.{index}.{key}": value for key, value in parameters}
        return found

    def uproot(self, host: "Host", name: str) -> None:
        """See ``Method.uproot``."""
        left = False
        for module in host.model.modules():
            prompts = ours(module)
            if isinstance(prompts, LayerPrompts):
                children(prompts).pop(name, None)
                prompts.cache.clear()
                if any(True for _ in prompts.children()):
                    left = True
                else:
                    remove_ours(module)
        host.seam.close()
        if left:
            host.seam.open()
