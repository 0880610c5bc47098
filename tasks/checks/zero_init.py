"""Zero-init prompts on three tiny hosts: nothing changes at step 0, the gate opens them, detaching leaves nothing."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tasks.bench.doctor import Finding, Request


def findings(_: Request) -> Iterator[Finding]:
    """One a host."""
    import torch

    with torch.random.fork_rng(), torch.no_grad():
        for name, build in HOSTS.items():
            torch.manual_seed(0)
            model, ask = build()
            trouble = _trouble(model.eval(), ask)
            said = "unchanged to the bit at step 0, opened by the gate, detached to the bit"
            remedy = "reinstall or update this package, transformers and timm"
            yield Finding("wrong", name, f"{trouble}: {remedy}") if trouble else Finding("ok", name, said)


def _trouble(model: Any, ask: Callable[[], Any]) -> str | None:
    import torch

    import zeroinit

    kept = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    frozen = ask()
    zeroinit.attach(model, zeroinit.ZeroInit(length=3, layers=2))
    if not torch.equal(ask(), frozen):
        return "attaching closed prompts changed what it computes"
    for key, parameter in zeroinit.trainable(model).items():
        if key.endswith(".gate"):
            parameter.fill_(0.5)
    if torch.equal(ask(), frozen):
        return "opening the gates changed nothing"
    zeroinit.detach(model)
    left = model.state_dict()
    if left.keys() != kept.keys() or not all(torch.equal(left[key], kept[key]) for key in kept):
        return "detaching left something behind"
    return None if torch.equal(ask(), frozen) else "detaching did not bring back what it computes"


SIZE: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}


def _llama() -> tuple[Any, Callable[[], Any]]:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(LlamaConfig(**SIZE, num_key_value_heads=2, max_position_embeddings=16))
    tokens = torch.randint(3, 50, (2, 9))
    return model, lambda: model(tokens).logits


def _roberta() -> tuple[Any, Callable[[], Any]]:
    import torch
    from transformers import RobertaConfig, RobertaForQuestionAnswering

    model = RobertaForQuestionAnswering(RobertaConfig(**SIZE, max_position_embeddings=16))
    tokens = torch.randint(3, 50, (2, 9))
    return model, lambda: model(tokens).start_logits


def _vit() -> tuple[Any, Callable[[], Any]]:
    import torch
    from timm.models.vision_transformer import VisionTransformer

    model = VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=4, num_classes=0)
    pictures = torch.randn(2, 3, 32, 32)
    return model, lambda: model(pictures)


HOSTS: Mapping[str, Callable[[], tuple[Any, Callable[[], Any]]]] = {
    "zero-init LLaMA": _llama,
    "zero-init RoBERTa": _roberta,
    "zero-init ViT": _vit,
}
