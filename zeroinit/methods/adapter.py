"""Bottleneck adapters: a small network behind each sublayer."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zeroinit.methods import Method
from zeroinit.prompts import Switch
from zeroinit.seams import remove_hooks
from zeroinit.tree import children, named, ours, remove_ours

if TYPE_CHECKING:
    from zeroinit.host import Host


@dataclass(frozen=True)
class BottleneckAdapter(Method):
    """x + W_up gelu(W_down x + b_down) + b_up on a sublayer's output x, before it joins the residual stream.

    Houlsby et al., Parameter-Efficient Transfer Learning for NLP (https://arxiv.org/abs/1902.00751), figure 2, behind
    both sublayers; with ``places=("feed_forward",)`` that of Pfeiffer et al. (https://arxiv.org/abs/2005.00247).
    W_down is drawn at random and W_up starts at zero, so the host starts as it is and both can learn: with both at
    zero, as in VPT's code, only b_up ever would. A place on tokens of ``width`` trains
    ``2 · width · bottleneck + bottleneck + width`` parameters.

    Attributes:
        bottleneck: the hidden size.
        layers: adapt the topmost so many blocks; None: all.
        places: behind which sublayers.
        init_std: of W_down.
        dtype: of the adapters, whatever the host's; they are cast at use.
        train_head: whether a task head, where there is one, trains along and is saved.

    Raises:
        ValueError: if a field is out of its range.
    """

    rates: ClassVar[tuple[float, ...]] = (3e-4, 1e-3, 3e-3)

    bottleneck: int = 64
    layers: int | None = None
    places: tuple[Literal["attention", "feed_forward"], ...] = ("attention", "feed_forward")
    init_std: float = 0.02
    dtype: str = "float32"
    train_head: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bottleneck < 1:
            raise ValueError(f"bottleneck is a hidden size, at least 1, not {self.bottleneck}")
        if not self.places or set(self.places) - {"attention", "feed_forward"}:
            raise ValueError(f'places are "attention", "feed_forward" or both, not {self.places!r}')

    def starts_closed(self) -> bool:
        """See ``Method.starts_closed``: W_up is zero."""
        return True

    def plant(self, host: "Host", name: str) -> None:
        """See ``Method.plant``.

        Raises:
            UnsupportedHostError: if the host's sublayers cannot be told apart.
        """
        for site in host.seam.top(self.layers):
            ends = host.seam.sublayers(site)
            for place in self.places:
                end = host.model.get_submodule(getattr(ends, place))
                bottlenecks = ours(end)
                if bottlenecks is None:
                    bottlenecks = Bottlenecks(host.switch)
                    end.add_module("zeroinit", bottlenecks)
                    end.register_forward_hook(_add_bottleneck)
                device, dtype = next(end.parameters()).device, getattr(torch, self.dtype)
                module = Bottleneck(site.width, self.bottleneck, self.init_std, dtype=dtype, device=device)
                bottlenecks.add_module(name, module)

    def planted(self, host: "Host", name: str) -> dict[str, nn.Parameter]:
        """``{path of the sublayer's last map}.down.weight`` and so on."""
        return {
            f"{path}.{key}": parameter
            for path, module in named(host.model)
            if isinstance(own := ours(module), Bottlenecks) and name in children(own)
            for key, parameter in own.get_submodule(name).named_parameters()
        }

    def uproot(self, host: "Host", name: str) -> None:
        """See ``Method.uproot``."""
        for module in host.model.modules():
            own = ours(module)
            if isinstance(own, Bottlenecks):
                children(own).pop(name, None)
                if not children(own):
                    remove_ours(module)
                    remove_hooks(module, (_add_bottleneck,))


class Bottleneck(nn.Module):
    """Down, gelu, up: (batch, tokens, width) to the same."""

    def __init__(
        self, width: int, hidden: int, init_std: float, *, dtype: torch.dtype, device: torch.device | None
    ) -> None:
        super().__init__()
        self.down = nn.Linear(width, hidden, dtype=dtype, device=device)
        self.up = nn.Linear(hidden, width, dtype=dtype, device=device)
        if self.down.weight.device.type != "meta":
            nn.init.normal_(self.down.weight, std=init_std)
            for parameter in (self.down.bias, self.up.weight, self.up.bias):
                nn.init.zeros_(parameter)

    def forward(self, tokens: Tensor) -> Tensor:
        """What is added to the tokens, in their dtype."""
        down, up = self.down, self.up
        hidden = F.gelu(F.linear(tokens, down.weight.to(tokens.dtype), down.bias.to(tokens.dtype)))
        return F.linear(hidden, up.weight.to(tokens.dtype), up.bias.to(tokens.dtype))


class Bottlenecks(nn.Module):
    """The named bottlenecks behind one map, planted in it under the name ``zeroinit``."""

    def __init__(self, switch: Switch) -> None:
        super().__init__()
        self.switch = switch


def _add_bottleneck(end: nn.Module, args: tuple[object, ...], output: Tensor) -> Tensor:
    """After the map that ends a sublayer: add what the active adapter says."""
    del args
    own: Bottlenecks = children(end)["zeroinit"]  # type: ignore[assignment]
    name = own.switch.state.alone
    return output + own.get_submodule(name)(output) if name in children(own) else output
