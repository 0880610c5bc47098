"""What README and the guides say to type works: every block runs, in order, in a folder with a newcomer's data."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from tasks.mini import BACKBONES, squad
from tasks.mini import instruct as mini

ROOT = Path(__file__).parents[1]
GUIDES = [
    pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if "python -m tasks" in path.read_text() else [])
    for path in sorted((ROOT / "docs").glob("*.md"))
]
SMOLLM2 = LlamaConfig(
    **{"vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30},
    **{"num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True},
)
"""HuggingFaceTB/SmolLM2-135M, as its config.json says."""


def blocks(page: Path) -> list[tuple[str, str]]:
    """The language and the text of every fenced block."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The folder, in which a hub's names are folders of small models."""
    shutil.copyfile(mini.folder() / "alpaca_data.json", tmp_path / "all.json")
    records = json.loads((tmp_path / "all.json").read_text())[:80]
    (tmp_path / "my_instructions.json").write_text(json.dumps(records))
    pd.DataFrame(records).to_csv(tmp_path / "my_instructions.csv", index=False)
    paragraphs = [part for article in squad.document("fit", 60, seed=1)["data"] for part in article["paragraphs"]]
    asked = [(part["context"], qa["question"], qa["answers"][0]["text"]) for part in paragraphs for qa in part["qas"]]
    pd.DataFrame(asked, columns=["context", "question", "answer"]).to_csv(tmp_path / "my_questions.csv", index=False)
    deep = LlamaForCausalLM(LlamaConfig.from_pretrained(BACKBONES / "llama", num_hidden_layers=30))
    for part in (deep, AutoTokenizer.from_pretrained(BACKBONES / "llama")):
        part.save_pretrained(tmp_path / "HuggingFaceTB" / "SmolLM2-135M-Instruct")
    for name, color in (("cats", "orange"), ("dogs", "brown")):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (40 + number, 40), color).save(tmp_path / "pictures" / name / f"{number}.png")
    shown = [
        {"image_id": number, "file": f"pictures/{name}/{number % 10}.png", "captions": [f"Some {name}.", f"A {name}."]}
        for number, name in enumerate(["cats"] * 10 + ["dogs"] * 10)
    ]
    (tmp_path / "my_captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in shown))
    made = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained, **given: made(name, **given))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", GUIDES)
def test_every_block_of_a_guide_runs(page, place, capfd):
    told: dict[str, object] = {}
    torch.manual_seed(0)
    shell = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for language, text in blocks(page):
        if language == "python":
            exec(compile(text, page.name, "exec"), told)
        elif language == "toml":
            (place / text.split("\n", 1)[0].removeprefix("# ")).write_text(text)
        else:
            subprocess.run(["bash", "-euo", "pipefail", "-c", text], check=True, cwd=place, env=shell)
    said = capfd.readouterr().out
    kept = re.findall(r"^results/local/cells/([a-z]+)", said, re.MULTILINE)
    match page.stem:
        case "llama":
            assert kept == ["instruct"]
        case "own-data":
            assert kept == ["instruct", "squad", "vtab", "coco"]
        case "vit":
            assert re.search(r"^[34] of 4$", said, re.MULTILINE)  # two colors are soon told apart
        case "compare":
            assert re.search(r"^\| lora +\|", said, re.MULTILINE)
            assert "0 discrepancies" in said
        case _:
            pytest.fail("say here what the guide must have shown")


def test_the_example_of_the_readme_runs_and_counts_right(place, monkeypatch):
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda _: AutoModelForCausalLM.from_config(SMOLLM2))
    (example,) = (text for language, text in blocks(ROOT / "README.md") if language == "python")
    told: dict = {}
    exec(compile(example, "README.md", "exec"), told)
    trained, whole = sum(p.numel() for p in told["parameters"]), sum(p.numel() for p in told["model"].parameters())
    assert f"# {trained:,} of {whole / 1e6:.1f} M;" in example
    assert len(list((place / "my-adapter").iterdir())) == 2
