"""How far from the floor: step, forward and generation of adapters as ratios, measured alternating in one process.

The floor of a training step is what no adapter of the top L layers can avoid: the frozen model forward, and its
backward with the gradient entering at the first adapted layer. The floor of a forward pass and of generation is
the frozen model itself. Every variant is timed next to its floor, in alternating order; a ratio is the median
over such pairs, with the distribution-free 95% interval of that median. On a GPU the ratio of the time in which
kernels run stands beside it; the rest of the wall time is the processor's, which launches them one by one.

    python -m tasks speed                                     # LLaMA, hidden 512, 8 layers, one CPU thread
    python -m tasks speed --preset 7b --device cuda --dtype bfloat16
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
import torch
import typer
from peft import AdaptionPromptConfig, LoraConfig, get_peft_model
from scipy.stats import quantile_test
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

import zeroinit

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Setting:
    """One measurement's shape; it stands in every row of the report."""

    hidden: int = 512
    layers: int = 8
    adapted: int = 6
    heads: int = 8
    feed_forward: int = 1376
    vocabulary: int = 2000
    sequence: int = 256
    batch: int = 4
    prompt: int = 10
    generated: int = 40
    device: str = "cpu"
    dtype: str = "float32"
    threads: int = 1


SMALL = Setting()
LLAMA_7B = Setting(4096, 32, 30, 32, 11008, 32000, 512, 4, device="cuda", dtype="bfloat16")


def frozen(setting: Setting) -> nn.Module:
    """A LLaMA with random weights, the same for every call, that trains nothing."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=setting.hidden,
        num_hidden_layers=setting.layers,
        num_attention_heads=setting.heads,
        intermediate_size=setting.feed_forward,
        vocab_size=setting.vocabulary,
        max_position_embeddings=2 * setting.sequence,
    )
    with torch.device(setting.device):
        model = LlamaForCausalLM._from_config(config, dtype=getattr(torch, setting.dtype))
    return model.requires_grad_(False)


def floor(setting: Setting) -> nn.Module:
    """The frozen model, the gradient entering at the first adapted layer."""
    model: Any = frozen(setting)

    def enter(layer: nn.Module, args: tuple[Any, ...]) -> None:
        del layer
        if torch.is_grad_enabled():
            args[0].requires_grad_()

    model.model.layers[setting.layers - setting.adapted].register_forward_pre_hook(enter)
    return model


def zero_init(setting: Setting) -> nn.Module:
    """Ours, its gates open."""
    model = zeroinit.attach(frozen(setting), zeroinit.ZeroInit(setting.prompt, setting.adapted))
    with torch.no_grad():
        for name, parameter in zeroinit.trainable(model).items():
            if name.endswith(".gate"):
                parameter.fill_(0.3)
    return model


def peft_adaption_prompt(setting: Setting) -> nn.Module:
    """PEFT's AdaptionPrompt, its gates open."""
    config = AdaptionPromptConfig(
        adapter_len=setting.prompt, adapter_layers=setting.adapted, task_type="CAUSAL_LM", target_modules="self_attn"
    )
    model = get_peft_model(frozen(setting), config)  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("adaption_gate"):
                parameter.fill_(0.3)
    return model


def _lora(setting: Setting, layers: int) -> nn.Module:
    chosen = list(range(setting.layers - layers, setting.layers))
    config = LoraConfig(r=8, target_modules=["q_proj", "v_proj"], layers_to_transform=chosen, task_type="CAUSAL_LM")
    model = get_peft_model(frozen(setting), config)  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02)
    return model


def peft_lora_same_layers(setting: Setting) -> nn.Module:
    """PEFT's LoRA, r = 8 on queries and values, in the layers that prompts adapt."""
    return _lora(setting, setting.adapted)


def peft_lora_all_layers(setting: Setting) -> nn.Module:
    """PEFT's LoRA, r = 8 on queries and values, in all layers."""
    return _lora(setting, setting.layers)


def full(setting: Setting) -> nn.Module:
    """Every parameter trains."""
    return frozen(setting).requires_grad_(True)


VARIANTS = (zero_init, peft_adaption_prompt, peft_lora_same_layers, peft_lora_all_layers, full)


def step(model: Any, tokens: Tensor, setting: Setting) -> None:
    """Forward and backward of a training step; no optimizer, whose cost is that of the trained parameters alone."""
    del setting
    model.train()
    model(tokens, labels=tokens).loss.backward()
    for parameter in model.parameters():
        parameter.grad = None


@torch.no_grad()
def forward(model: Any, tokens: Tensor, setting: Setting) -> None:
    """One pass in eval mode."""
    del setting
    model.eval()
    model(tokens)


@torch.no_grad()
def generation(model: Any, tokens: Tensor, setting: Setting) -> None:
    """Greedy decoding of one row with the cache, from a short start."""
    model.eval()
    count = setting.generated
    model.generate(input_ids=tokens[:1, :32], max_new_tokens=count, min_new_tokens=count, do_sample=False)


MEASURES: dict[str, Callable[[Any, Tensor, Setting], None]] = {
    "step": step,
    "forward": forward,
    "generation": generation,
}


def seconds(measure: Callable[[Any, Tensor, Setting], None], model: Any, tokens: Tensor, setting: Setting) -> float:
    """The wall time of one call."""
    _wait(setting)
    start = time.perf_counter()
    measure(model, tokens, setting)
    _wait(setting)
    return time.perf_counter() - start


def _wait(setting: Setting) -> None:
    if setting.device == "cuda":
        torch.cuda.synchronize()


def kernels_ms(measure: Callable[[Any, Tensor, Setting], None], model: Any, tokens: Tensor, setting: Setting) -> float:
    """How long kernels run on the GPU in one call, the gaps between them apart."""
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        measure(model, tokens, setting)
        _wait(setting)
    kernels = (event for event in seen.key_averages() if event.device_type.name == "CUDA")
    return sum(event.self_device_time_total for event in kernels) / 1e3


def memory_mb(model: Any, tokens: Tensor, setting: Setting) -> float:
    """CUDA: the peak of a step above what is resident. CPU: what autograd saves for backward, parameters apart."""
    if setting.device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        resident = torch.cuda.memory_allocated()
        step(model, tokens, setting)
        return (torch.cuda.max_memory_allocated() - resident) / 2**20
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    model.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(tokens, labels=tokens).loss
    total = sum(saved.values()) / 2**20
    del loss
    return total


def compare(setting: Setting, rounds: int, measures: list[str], progress: bool = True) -> pd.DataFrame:
    """One row a variant and measure: the median ratio to the floor, its 95% interval, the spread of the pairs."""
    torch.set_num_threads(setting.threads)
    torch.manual_seed(1)
    tokens = torch.randint(0, setting.vocabulary, (setting.batch, setting.sequence), device=setting.device)
    base = floor(setting)
    base_memory = memory_mb(base, tokens, setting)
    rows: list[dict[str, object]] = []
    bar = tqdm(total=len(VARIANTS) * len(measures) * rounds, unit="pair", disable=not progress)
    for make in VARIANTS:
        model = make(setting)
        memory = memory_mb(model, tokens, setting)
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        for name in measures:
            if make is full and name != "step":
                bar.update(rounds)
                continue
            pairs = []
            for index in range(rounds + 1):
                order = (base, model) if index % 2 else (model, base)
                times = {id(m): seconds(MEASURES[name], m, tokens, setting) for m in order}
                if index:  # the first pair warms up
                    pairs.append((times[id(model)], times[id(base)]))
                    bar.update()
            ratios = pd.Series([ours / theirs for ours, theirs in pairs])
            interval = quantile_test(ratios, p=0.5).confidence_interval(0.95)
            busy = [kernels_ms(MEASURES[name], m, tokens, setting) for m in (model, base) if setting.device == "cuda"]
            rows.append(
                {
                    "measure": name,
                    "variant": make.__name__,
                    "ratio": round(ratios.median(), 4),
                    "low": round(float(interval.low), 4),
                    "high": round(float(interval.high), 4),
                    "q25": round(ratios.quantile(0.25), 4),
                    "q75": round(ratios.quantile(0.75), 4),
                    "pairs": rounds,
                    "floor_ms": round(1e3 * pd.Series([theirs for _, theirs in pairs]).median(), 2),
                    "memory_ratio": round(memory / base_memory, 3),
                    "kernel_ratio": round(busy[0] / busy[1], 4) if busy else None,
                    "trained": trained,
                }
            )
        del model
    bar.close()
    return pd.DataFrame(rows).sort_values(["measure", "variant"], kind="stable").reset_index(drop=True)


def report(table: pd.DataFrame, setting: Setting) -> str:
    """The table for a terminal."""
    shown = table.assign(interval=[f"{low:.3f} to {high:.3f}" for low, high in zip(table.low, table.high, strict=True)])
    columns = [
        "measure",
        "variant",
        "ratio",
        "interval",
        "kernel_ratio",
        "floor_ms",
        "memory_ratio",
        "trained",
        "pairs",
    ]
    shown = shown[columns].dropna(axis="columns", how="all")  # no GPU, no kernels
    lines = [f"{key}={value}" for key, value in vars(setting).items()]
    return " ".join(lines) + "\n\n" + shown.to_string(index=False)


@app.command()
def main(
    rounds: Annotated[int, typer.Option(min=6, help="alternating pairs of each variant with its floor")] = 30,
    preset: Annotated[Literal["small", "7b"], typer.Option(help="the model's shape")] = "small",
    measure: Annotated[list[str] | None, typer.Option(help="step, forward, generation; all by default")] = None,
    device: Annotated[Literal["cpu", "cuda"] | None, typer.Option(help="where")] = None,
    dtype: Annotated[Literal["float32", "bfloat16"] | None, typer.Option(help="of the host")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads")] = 1,
    csv: Annotated[Path | None, typer.Option(help="where to write the table")] = None,
) -> None:
    """Time adapters against the floor; close everything else that computes."""
    setting = {"small": SMALL, "7b": LLAMA_7B}[preset]
    changes = {"device": device or setting.device, "dtype": dtype or setting.dtype, "threads": threads}
    setting = Setting(**{**vars(setting), **changes})
    if setting.device == "cuda" and not torch.cuda.is_available():
        raise typer.BadParameter("no CUDA device is available here", param_hint="--device")
    if unknown := sorted(set(measure or []) - set(MEASURES)):
        raise typer.BadParameter(f"{', '.join(unknown)}: there are {', '.join(MEASURES)}", param_hint="--measure")
    if csv is not None:
        _check_writable(csv)  # before many minutes of measurement
    table = compare(setting, rounds, measure or list(MEASURES))
    typer.echo(report(table, setting))
    if csv is not None:
        versions = {"torch": torch.__version__, "device_name": _device_name(setting)}
        table.assign(**vars(setting), **versions).to_csv(csv, index=False)


def _check_writable(file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.open("a").close()
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be written ({error.strerror})", param_hint="--csv") from None


def _device_name(setting: Setting) -> str:
    return torch.cuda.get_device_name() if setting.device == "cuda" else "cpu"


if __name__ == "__main__":
    app()
