"""Visual prompt tuning: learned tokens among the patches, anew in every block (deep) or once (shallow)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor, nn

from zeroinit.methods import Method
from zeroinit.prompts import Switch
from zeroinit.seams import Site, UnsupportedHostError, remove_hooks
from zeroinit.tree import children, named, ours, parameters, remove_ours

if TYPE_CHECKING:
    from zeroinit.host import Host


@dataclass(frozen=True)
class Vpt(Method):
    """Tokens beside the class token at the input of every block, which leave the block with it.

    Jia et al., Visual Prompt Tuning (https://arxiv.org/abs/2203.12119), eq. 4-8: VPT-deep, or VPT-shallow without
    ``deep``, where prompts enter the first block and stay to the last. Deep prompts train ``L · length · width``
    parameters: 460,800 in a ViT-B/16 with 50 prompts; shallow ones ``length · width``. Prompts are drawn as VPT draws
    them, uniformly within ±sqrt(6 / (3 · patch area + width)), and have no place embedding.

    Attributes:
        length: prompts a block.
        layers: the topmost so many blocks get prompts; None: all.
        deep: new prompts in every block.
        dtype: of the prompts, whatever the host's; they are cast at use.
        train_head: whether the classifier trains along and is saved.

    Raises:
        ValueError: if a field is out of its range.
    """

    rates: ClassVar[tuple[float, ...]] = (3e-3, 1e-2, 3e-2)

    length: int = 50
    layers: int | None = None
    deep: bool = True
    dtype: str = "float32"
    train_head: bool = True

    def plant(self, host: "Host", name: str) -> None:
        """See ``Method.plant``.

        Raises:
            UnsupportedHostError: if the host is no plain ViT of timm: others count tokens by place, or hide some.
        """
        sites = host.seam.top(self.layers)
        model: Any = host.model
        if not _is_plain_vit(model, sites):
            raise UnsupportedHostError(
                f"{type(model).__name__} is no plain ViT of timm, whose blocks take tokens in any number: vpt is for "
                "those; choose prefix or zero_init"
            )
        patch = model.patch_embed.proj.weight
        reach = (6 / (patch[0].numel() + sites[0].width)) ** 0.5
        blocks = [site.block for site in sites]
        for block in blocks if self.deep else blocks[:1]:
            prompts = _tokens_of(block, host.switch, model.num_prefix_tokens)
            parameter = torch.empty(self.length, sites[0].width, dtype=getattr(torch, self.dtype), device=patch.device)
            prompts.register_parameter(name, nn.Parameter(parameter))
            if parameter.device.type != "meta":
                nn.init.uniform_(parameter, -reach, reach)
        for block in blocks if self.deep else blocks[-1:]:
            _tokens_of(block, host.switch, model.num_prefix_tokens).leaving[name] = self.length

    def planted(self, host: "Host", name: str) -> dict[str, nn.Parameter]:
        """``{path of the block}.prompt``."""
        return {
            f"{path}.prompt": parameters(prompts)[name]  # type: ignore[misc]
            for path, module in named(host.model)
            if isinstance(prompts := ours(module), BlockTokens) and name in parameters(prompts)
        }

    def uproot(self, host: "Host", name: str) -> None:
        """See ``Method.uproot``."""
        for module in host.model.modules():
            prompts = ours(module)
            if isinstance(prompts, BlockTokens):
                parameters(prompts).pop(name, None)
                prompts.leaving.pop(name, None)
                if not parameters(prompts) and not prompts.leaving:
                    remove_ours(module)
                    remove_hooks(module, (_enter, _leave))


class BlockTokens(nn.Module):
    """The named prompts of one block, planted in it under the name ``zeroinit``.

    Attributes:
        first: how many tokens of the host stand before the prompts: the class token and its like.
        leaving: how many prompts leave with this block, by name.
    """

    def __init__(self, switch: Switch, first: int) -> None:
        super().__init__()
        self.switch = switch
        self.first = first
        self.leaving: dict[str, int] = {}


def _is_plain_vit(model: nn.Module, sites: list[Site]) -> bool:
    from timm.layers.attention import Attention
    from timm.models.vision_transformer import VisionTransformer

    return (
        isinstance(model, VisionTransformer)
        and type(model).forward_features is VisionTransformer.forward_features
        and all(type(site.module).forward is Attention.forward for site in sites)
    )


def _tokens_of(block: nn.Module, switch: Switch, first: int) -> BlockTokens:
    prompts = ours(block)
    if prompts is None:
        prompts = BlockTokens(switch, first)
        block.add_module("zeroinit", prompts)
        block.register_forward_pre_hook(_enter)
        block.register_forward_hook(_leave)
    return cast(BlockTokens, prompts)


def _enter(block: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Before a block runs: put the active prompts behind its class token."""
    own = cast(BlockTokens, children(block)["zeroinit"])
    tokens, prompt = args[0], parameters(own).get(str(own.switch.state.alone))
    if prompt is None:
        return args
    prompt = prompt.to(tokens.dtype).expand(tokens.shape[0], -1, -1)
    return (torch.cat([tokens[:, : own.first], prompt, tokens[:, own.first :]], dim=1), *args[1:])


def _leave(block: nn.Module, args: tuple[Tensor, ...], tokens: Tensor) -> Tensor:
    """After a block: take the prompts that leave here out again."""
    del args
    own = cast(BlockTokens, children(block)["zeroinit"])
    length = own.leaving.get(str(own.switch.state.alone), 0)
    return torch.cat([tokens[:, : own.first], tokens[:, own.first + length :]], dim=1) if length else tokens
