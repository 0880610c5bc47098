"""The backbones that ship: files as their recipe tells of them, a recipe that still works, tokens as it made them."""

import itertools
import json
import random
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tasks.backbones import roberta, vit
from tasks.bench import task as tasks
from tasks.bench.digests import digest
from tasks.bench.run import run
from tasks.bench.store import Store
from tasks.bench.suite import plan, read, single
from tasks.mini import BACKBONES, plain, pretrain, vocabulary, world
from tasks.mini.pretrain import llama
from tests.tasks.conftest import tiny_llama


@pytest.mark.parametrize("name", pretrain.RECIPES)
def test_what_ships_is_what_the_recipe_made(name):
    told = json.loads((BACKBONES / name / "pretrained.json").read_text())
    recipe = pretrain.RECIPES[name]
    assert told["sha256"] == digest(BACKBONES / name / "model.safetensors")
    assert (told["world"], told["steps"], told["batch"]) == (world.VERSION, recipe.steps, recipe.batch)
    assert told["loss"][-1] < 0.6 * told["loss"][0]


def test_all_that_ships_is_small():
    assert sum(path.stat().st_size for path in BACKBONES.rglob("*") if path.is_file()) < 12_000_000


@pytest.mark.parametrize("name", pretrain.RECIPES)
def test_the_recipe_still_works(name, tmp_path):
    recipe = replace(pretrain.RECIPES[name], batch=8)
    told = [pretrain.pretrain(recipe, tmp_path / name, steps=20) for _ in range(2)]
    assert told[0]["sha256"] == told[1]["sha256"] == digest(tmp_path / name / "model.safetensors")
    assert told[0]["loss"] == told[1]["loss"]
    first, last = (sum(part) / 3 for part in (told[0]["loss"][:3], told[0]["loss"][-3:]))
    assert last < 0.95 * first
    assert pretrain.pretrain(recipe, tmp_path / "other", steps=1, seed=1)["sha256"] != told[0]["sha256"]


@pytest.mark.parametrize(("name", "made"), [("llama", vocabulary.unigram), ("roberta", vocabulary.wordpiece)])
def test_tokenizers_ship_as_they_were_made(name, made):
    shipped, tokenizer = AutoTokenizer.from_pretrained(BACKBONES / name), made()
    texts = ["Mira owns the red ball.", "### Instruction:\nCount.\n\n### Response:", "Ünïcode 12 coins", ""]
    assert shipped(texts)["input_ids"] == tokenizer(texts)["input_ids"]
    assert shipped(texts[0], texts[0])["input_ids"] == tokenizer(texts[0], texts[0])["input_ids"]
    assert shipped.special_tokens_map == tokenizer.special_tokens_map
    assert shipped.model_max_length == tokenizer.model_max_length


def test_the_models_that_run_are_those_that_ship(small_run):
    from safetensors.torch import load_file

    loaded = {"llama": tiny_llama()[0], "roberta": roberta.span(small_run()).model.roberta}
    loaded["vit"] = vit.source("mini").load()
    for name, model in loaded.items():
        shipped = load_file(BACKBONES / name / "model.safetensors")
        state = model.state_dict()
        assert len(shipped) > 30
        for key, tensor in shipped.items():
            assert torch.equal(state[key], tensor), key


def test_the_first_heads_of_a_new_llama_look_back_whatever_stands_there():
    torch.manual_seed(0)
    model = pretrain.RECIPES["llama"].build().eval()
    model.set_attn_implementation("eager")
    words = torch.randint(300, model.config.vocab_size, (8, 24))
    (weights,) = model(words, output_attentions=True).attentions[:1]
    for head, distance in enumerate(llama.BACK):
        assert weights[:, head].diagonal(-distance, 1, 2).mean() > 0.7
    assert weights[:, len(llama.BACK) :].diagonal(-1, 2, 3).mean() < 0.3


def test_what_ships_finds_the_letter_of_a_word_in_a_list():
    """What the questions with options ask of it; guessing among the letters there are would find a third."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(BACKBONES / "llama").eval(), vocabulary.unigram()
    letters = [tokenizer(f" ({letter})", add_special_tokens=False)["input_ids"][0] for letter in plain.LETTERS]
    right = asked = chance = 0
    for number, scene in enumerate(itertools.islice(world.scenes("report"), 40)):
        draw = random.Random(f"lists {number}")
        words = draw.sample([thing.town for thing in scene.things] + list(world.MATERIALS), draw.randint(2, 4))
        listed = " ".join(f"({letter}) {word}" for letter, word in zip(plain.LETTERS, words, strict=False))
        for place, word in enumerate(words):
            ids = tokenizer(f"The list is {listed}. The word {word} is", return_tensors="pt")["input_ids"]
            with torch.no_grad():
                said = model(ids).logits[0, -1, letters].argmax().item()
            right, asked, chance = right + (said == place), asked + 1, chance + 1 / len(words)
    assert right / asked > 0.8 > 2 * chance / asked


@pytest.mark.slow
@pytest.mark.parametrize("table", ["squad v1.1", "vtab svhn", "vtab clevr_count", "instruct alpaca"])
def test_a_frozen_backbone_that_ships_is_better_than_a_random_one(table, tmp_path):
    """Adapted in the same way, as the embedded suite does it; the README tells of the tables where it is not."""
    planned = [each for each in plan(read("mini"), {"device": "cpu"}, {}) if each.choice.method == "zero_init"]
    config = next(each for each in planned if table == f"{each.choice.task} {each.dataset}")
    name = config.choice.backbone
    pretrain.pretrain(pretrain.RECIPES[name], tmp_path / name, steps=0)
    checkpoint = tmp_path / name / ("model.safetensors" if name == "vit" else "")
    bare = single(replace(config.choice, checkpoint=str(checkpoint)), suite_settings(config))
    task, store = tasks.get(config.choice.task), Store(tmp_path / "r")
    metric = task.headline[config.dataset][0]
    scores = [run(each, store).result["splits"]["report"]["scores"][metric] for each in (config, bare)]
    print(table, metric, scores)
    (ours, near), (theirs, wide) = scores
    assert (theirs - ours if metric in task.lower else ours - theirs) > 3 * (near**2 + wide**2) ** 0.5


def suite_settings(config):
    """What a run was planned with, as flags would say it."""
    return {f"{group}.{name}": value for group, values in config.settings.items() for name, value in values.items()}
