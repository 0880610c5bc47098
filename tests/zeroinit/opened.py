"""Tiny hosts with adapters whose gates are open: a closed gate would hide every defect of the prompts."""

from collections.abc import Callable, Sequence

import torch
import transformers
from torch import Tensor, nn

import zeroinit

VOCABULARY = 61
_SIZE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    # Wide weights let a small change of the context be seen in the logits.
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
    # Tied embeddings make a random model repeat its last token whatever its layers do.
    "tie_word_embeddings": False,
}
_GROUPED = {**_SIZE, "num_key_value_heads": 2}


def _decoder(config: transformers.PretrainedConfig, attention: str) -> nn.Module:
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention)


def llama(attention: str = "sdpa", layers: int = 3) -> nn.Module:
    return _decoder(transformers.LlamaConfig(**{**_GROUPED, "num_hidden_layers": layers}), attention)


def mistral(attention: str = "sdpa") -> nn.Module:
    """With a window shorter than the tests' sequences."""
    return _decoder(transformers.MistralConfig(**_GROUPED, sliding_window=5), attention)


def qwen2(attention: str = "sdpa") -> nn.Module:
    return _decoder(transformers.Qwen2Config(**_GROUPED), attention)


def qwen3(attention: str = "sdpa") -> nn.Module:
    return _decoder(transformers.Qwen3Config(**_GROUPED, head_dim=8), attention)


def gpt2(attention: str = "sdpa") -> nn.Module:
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=32,
        n_layer=3,
        n_head=4,
        n_positions=64,
        initializer_range=0.3,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=1,
        eos_token_id=None,
        pad_token_id=0,
    )
    return _decoder(config, attention)


def gemma2(attention: str = "eager") -> nn.Module:
    """Its scores are soft-capped, which only eager attention does; the cap is low enough to bite."""
    cap = {"attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 8, "sliding_window": 5}
    return _decoder(transformers.Gemma2Config(**_GROUPED, head_dim=8, **cap), attention)


def roberta(labels: int = 3, layers: int = 3) -> nn.Module:
    config = transformers.RobertaConfig(
        **{**_SIZE, "num_hidden_layers": layers},
        num_labels=labels,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return transformers.AutoModelForSequenceClassification.from_config(config)


def llama_classifier(labels: int = 3) -> nn.Module:
    config = transformers.LlamaConfig(**_GROUPED, num_labels=labels)
    return transformers.AutoModelForSequenceClassification.from_config(config)


def vit(labels: int = 3, layers: int = 3) -> nn.Module:
    import timm  # not at the top: processes that tests start without pictures need not wait for it

    return timm.create_model(
        "vit_tiny_patch16_224",
        img_size=32,
        embed_dim=32,
        depth=layers,
        num_heads=4,
        num_classes=labels,
        # timm starts its classifier near zero and scales its residual branches down.
        weight_init="jax",
    )


DECODERS: dict[str, Callable[..., nn.Module]] = {
    "llama": llama,
    "mistral": mistral,
    "gpt2": gpt2,
    "gemma2": gemma2,
}
HOSTS: dict[str, Callable[..., nn.Module]] = {"llama": llama, "roberta": roberta, "vit": vit}


def opened(
    host: Callable[..., nn.Module],
    method: zeroinit.ZeroInit | None = None,
    *,
    seed: int = 0,
    names: Sequence[str] = ("default",),
    **options: object,
) -> nn.Module:
    """A host in eval mode with adapters of open gates and, where it has a head, heads of their own."""
    torch.manual_seed(seed)
    model = host(**options).eval()
    for name in names:
        zeroinit.attach(model, method or zeroinit.ZeroInit(length=3, layers=2), name)
        open_gates(model)
    return model


@torch.no_grad()
def open_gates(model: nn.Module) -> None:
    """Open the active adapters' gates, each head's a little differently, and move all else that trains."""
    for name, parameter in zeroinit.trainable(model).items():
        if name.endswith(".gate"):
            parameter.fill_(0.5)
        parameter += 0.1 * torch.randn_like(parameter)


def tokens(rows: int = 2, length: int = 9, seed: int = 1) -> Tensor:
    """Random tokens, none of them padding."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCABULARY, (rows, length), generator=generator)


def images(rows: int = 2, seed: int = 1) -> Tensor:
    return torch.randn(rows, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def batch_for(model: nn.Module, rows: int = 2, seed: int = 1) -> Tensor:
    """What a host of these takes as its one positional argument."""
    return tokens(rows, seed=seed) if isinstance(model, transformers.PreTrainedModel) else images(rows, seed)


def logits(model: nn.Module, inputs: Tensor, **options: object) -> Tensor:
    output = model(inputs, **options)
    return output if isinstance(output, Tensor) else output.logits


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """Those of everything that trains; each must be there."""
    found = {name: parameter.grad for name, parameter in zeroinit.trainable(model).items()}
    assert all(gradient is not None for gradient in found.values())
    return {name: gradient.clone() for name, gradient in found.items() if gradient is not None}
