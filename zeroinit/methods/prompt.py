"""Prompt tuning: learned tokens before the input, once."""

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor, nn

from zeroinit.methods import Method
from zeroinit.methods.vpt import Vpt
from zeroinit.prompts import Switch
from zeroinit.seams import continued, remove_hooks
from zeroinit.tree import ours, parameters, remove_ours

if TYPE_CHECKING:
    from zeroinit.host import Host


@dataclass(frozen=True)
class PromptTuning(Method):
    """Embeddings of tokens that do not exist, in front of those of the text; on a ViT of timm, VPT-shallow.

    Lester et al., The Power of Scale for Parameter-Efficient Prompt Tuning (https://arxiv.org/abs/2104.08691). Trains
    ``length · width`` parameters: 81,920 in LLaMA-7B with 20 tokens. The prompt starts as embeddings of words drawn
    from the vocabulary. Positions count it; what the model returns does not show it.

    Attributes:
        length: of the prompt, in tokens.
        dtype: of the prompt, whatever the host's; it is cast at use.
        train_head: whether a task head, where there is one, trains along and is saved.

    Raises:
        ValueError: if a field is out of its range.
    """

    rates: ClassVar[tuple[float, ...]] = (3e-3, 1e-2, 3e-2)

    length: int = 20
    dtype: str = "float32"
    train_head: bool = True

    def plant(self, host: "Host", name: str) -> None:
        """See ``Method.plant``.

        Raises:
            UnsupportedHostError: if the host does not take embeddings instead of tokens.
        """
        entry = host.seam.token_entry()
        if entry is None:
            self._shallow().plant(host, name)
            return
        embedding: Any = _embedding_of(entry)
        prompts = _prompts_of(entry)
        if prompts is None:
            prompts = InputPrompts(host.switch)
            embedding.add_module("zeroinit", prompts)
            entry.register_forward_pre_hook(_enter, with_kwargs=True)
            entry.register_forward_hook(_leave)
        words = torch.randint(embedding.weight.shape[0], (self.length,), device=embedding.weight.device)
        with torch.no_grad():
            start: Tensor = embedding(words).to(getattr(torch, self.dtype))
        prompts.register_parameter(name, nn.Parameter(start.clone()))

    def planted(self, host: "Host", name: str) -> dict[str, nn.Parameter]:
        """``prompt``."""
        entry = host.seam.token_entry()
        if entry is None:
            return self._shallow().planted(host, name)
        own = _prompts_of(entry)
        parameter = parameters(own).get(name) if own is not None else None
        return {} if parameter is None else {"prompt": parameter}

    def uproot(self, host: "Host", name: str) -> None:
        """See ``Method.uproot``."""
        entry = host.seam.token_entry()
        if entry is None:
            self._shallow().uproot(host, name)
            return
        own = _prompts_of(entry)
        if own is not None:
            parameters(own).pop(name, None)
            if not parameters(own):
                remove_ours(_embedding_of(entry))
                remove_hooks(entry, (_enter, _leave))

    def _shallow(self) -> Vpt:
        return Vpt(length=self.length, deep=False, dtype=self.dtype, train_head=self.train_head)


class InputPrompts(nn.Module):
    """The named prompts of a model, planted in its token embedding under the name ``zeroinit``.

    Attributes:
        entered: how many tokens went in front of the pass that runs now.
    """

    def __init__(self, switch: Switch) -> None:
        super().__init__()
        self.switch = switch
        self.entered = 0

    def acting(self) -> Tensor | None:
        """The prompt that acts: (prompt, width)."""
        return self._parameters.get(str(self.switch.state.alone))


def _embedding_of(entry: nn.Module) -> nn.Module:
    return cast(Any, entry).get_input_embeddings()


def _prompts_of(entry: nn.Module) -> InputPrompts | None:
    return cast(InputPrompts | None, ours(_embedding_of(entry)))


def _enter(entry: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[()], dict[str, Any]] | None:
    """Before the base model runs: put the prompt before a text's first pass, and count it in every pass.

    Raises:
        ValueError: if the mask is not (batch, tokens), or prompt and text are longer than the model reads.
    """
    own = cast(InputPrompts, _prompts_of(entry))
    prompt = own.acting()
    own.entered = 0
    if prompt is None:
        return None
    takes = inspect.signature(entry.forward).parameters
    kwargs = dict(zip(takes, args, strict=False)) | kwargs
    given, cache = kwargs.get("inputs_embeds"), continued(kwargs)
    embeds: Tensor = _embedding_of(entry)(kwargs["input_ids"]) if given is None else given
    batch, tokens = embeds.shape[:2]
    past = cache.get_seq_length() if cache is not None else 0
    length = prompt.shape[0]
    told = kwargs.get("attention_mask")
    mask: Tensor = embeds.new_ones(batch, max(past - length, 0) + tokens, dtype=torch.long) if told is None else told
    if mask.dim() != 2:
        raise ValueError("prompt tuning takes masks of (batch, tokens): use a dynamic cache, and no mask made by hand")
    mask = torch.cat([mask.new_ones(batch, length), mask], dim=1)
    places = (mask.cumsum(1) - 1).clamp(min=0)
    if past == 0:
        own.entered = length
        embeds = torch.cat([prompt.to(embeds.dtype).expand(batch, -1, -1), embeds], dim=1)
    first = _first_position(entry)
    most = getattr(entry.config, "max_position_embeddings", None)
    if first is not None and most is not None and past + embeds.shape[1] > most - first:
        raise ValueError(
            f"a prompt of {length} and a text of {tokens} tokens are more than the {most - first} of the model"
        )
    changed: dict[str, Tensor | None] = {"input_ids": None, "inputs_embeds": embeds, "attention_mask": mask}
    if "position_ids" in takes:
        changed["position_ids"] = places[:, -embeds.shape[1] :] + (first or 0)
    if kwargs.get("token_type_ids") is not None and own.entered:
        types = kwargs["token_type_ids"]
        changed["token_type_ids"] = torch.cat([types.new_zeros(batch, length), types], dim=1)
    return (), kwargs | changed


def _first_position(entry: nn.Module) -> int | None:
    """Where learned positions begin: RoBERTa's behind that of padding; None where none are learned."""
    table = getattr(getattr(entry, "embeddings", None), "position_embeddings", None)
    if not isinstance(table, nn.Embedding):
        return None
    return 0 if table.padding_idx is None else table.padding_idx + 1


def _leave(entry: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    """After the base model: take the prompt's places out of what heads read."""
    del args
    entered = cast(InputPrompts, _prompts_of(entry)).entered
    if not entered:
        return output
    if isinstance(output, tuple):
        return (output[0][:, entered:], *output[1:])
    output["last_hidden_state"] = output.last_hidden_state[:, entered:]
    pooler = getattr(entry, "pooler", None)
    if output.get("pooler_output") is not None and pooler is not None:
        output["pooler_output"] = pooler(output.last_hidden_state)
    return output
