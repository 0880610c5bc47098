"""Reading language: against one sequence at a time, transformers' own loss, and a model that learned its answers."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

import zeroinit
from tasks.backbones import llama
from tasks.bench.errors import InputError
from tasks.bench.evaluate import evaluate
from tasks.bench.train import to_device
from tasks.outputs.lm import IGNORED, LmReader
from tests.tasks.conftest import tiny_llama


@dataclass(frozen=True)
class Example:
    id: str
    prompt: str
    target: str = ""
    options: tuple[str, ...] = ()
    image: Path | None = None


EXAMPLES = [
    Example("a", "Where does the gem come from?", " Orlo", (" Orlo", " Brindel, a town", " I")),
    Example("b", "Who?\n\n### Response:", "Tobin the baker of Felt, born in 1900."),
    Example("c", "Q", "", ("no",)),
    Example("d", "What does Rosa hold? The ball comes from Quint.", " ball"),
]


@pytest.fixture(scope="module")
def host():
    """An adapted model with open gates, and its tokenizer."""
    model, tokenizer = tiny_llama()
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    zeroinit.attach(model, zeroinit.ZeroInit(length=4, gate_init=0.7))
    return llama._settled(model).eval(), tokenizer


def one_by_one(model, tokenizer, prompt: str, continuation: list[int]) -> float:
    """The log-probability of tokens after a prompt, from one unpadded sequence, in float64."""
    given = tokenizer(prompt)["input_ids"]
    with torch.no_grad():
        said = model(torch.tensor([given + continuation])).logits[0].double().log_softmax(-1)
    return sum(float(said[len(given) - 1 + place, token]) for place, token in enumerate(continuation))


@pytest.mark.parametrize("size", [1, 3, 4])
def test_targets_and_options_weigh_what_each_weighs_alone(host, size):
    model, tokenizer = host
    said = evaluate(model, LmReader(tokenizer, max_length=256, weigh_target=True), EXAMPLES, size)
    for example, found in zip(EXAMPLES, said, strict=True):
        target = [*tokenizer(example.target, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        assert found.tokens == len(target)
        assert found.nll == pytest.approx(-one_by_one(model, tokenizer, example.prompt, target), abs=1e-4)
        options = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in example.options]
        expected = [one_by_one(model, tokenizer, example.prompt, option) for option in options]
        assert list(found.options) == pytest.approx(expected, abs=1e-4)
        assert (found.text, found.truncated, found.new_tokens) == ("", False, 0)


def test_only_what_was_asked_for_is_weighed(host):
    model, tokenizer = host
    said = evaluate(model, LmReader(tokenizer, max_length=256), EXAMPLES, 4)
    assert [(found.nll, found.tokens, len(found.options)) for found in said] == [
        (0, 0, 3),
        (0, 0, 0),
        (0, 0, 1),
        (0, 0, 0),
    ]


def test_the_loss_is_transformers_own_over_the_response_alone(host):
    model, tokenizer = host
    reader = LmReader(tokenizer, max_length=256, max_new_tokens=4)
    batch = reader.collate(reader.fit(EXAMPLES))
    names = ("input_ids", "attention_mask", "labels")
    assert reader.loss(model, batch).item() == pytest.approx(
        model(**{n: batch[n] for n in names}).loss.item(), abs=1e-5
    )
    for row, example in zip(batch["labels"].tolist(), EXAMPLES, strict=True):
        learned = [token for token in row if token != IGNORED]
        assert tokenizer.decode(learned) == f"{example.target}</s>"
    assert set(batch) == {"counts", *names}


def test_a_batch_answers_as_each_prompt_alone(host):
    model, tokenizer = host
    for beams in (1, 3):
        reader = LmReader(tokenizer, max_length=256, max_new_tokens=6, num_beams=beams)
        for example, found in zip(EXAMPLES, evaluate(model, reader, EXAMPLES, 4), strict=True):
            ids = torch.tensor([tokenizer(example.prompt)["input_ids"]])
            alone = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=6,
                do_sample=False,
                num_beams=beams,
                eos_token_id=2,
                pad_token_id=0,
                use_cache=False,
            )[0, ids.shape[1] :].tolist()
            ended = 2 in alone
            assert found.truncated is not ended
            assert found.new_tokens == (alone.index(2) if ended else 6)
            assert found.text == tokenizer.decode(alone, skip_special_tokens=True).strip()


def test_draws_depend_on_the_seed_and_the_batch_alone(host):
    model, tokenizer = host

    def answers(seed=0, temperature=1.0, top_p=1.0, examples=EXAMPLES):
        reader = LmReader(tokenizer, max_length=256, max_new_tokens=12, temperature=temperature, top_p=top_p, seed=seed)
        return [said.text for said in evaluate(model, reader, examples, 2)]

    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = answers()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert answers() == first
    together = [EXAMPLES[1], EXAMPLES[2]]  # they shared a batch, so they draw the same without the others
    assert answers(examples=together) == [first[1], first[2]]
    assert answers(seed=1) != first
    greedy = [
        said.text for said in evaluate(model, LmReader(tokenizer, max_length=256, max_new_tokens=12), EXAMPLES, 2)
    ]
    assert answers(temperature=1e-4) == answers(top_p=1e-6) == greedy != first


def test_what_is_learned_is_said():
    """Trained through the reader's own loss, a model answers with the targets, ends them, and finds them likely."""
    model, tokenizer = tiny_llama()
    torch.manual_seed(0)
    examples = [
        Example("a", "Where?", "in Orlo"),
        Example("b", "Who lives there, and since when?", "Mira owns it, 12 coins"),
    ]
    reader = LmReader(tokenizer, max_length=64, max_new_tokens=16, weigh_target=True)
    batch = reader.collate(reader.fit(examples))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        reader.loss(model, batch).backward()
        optimizer.step()
    said = evaluate(llama._settled(model), reader, examples, 2)
    assert [found.text for found in said] == ["in Orlo", "Mira owns it, 12 coins"]
    assert not any(found.truncated for found in said)
    assert all(found.nll < 0.5 and found.new_tokens == found.tokens - 1 for found in said)
    short = LmReader(tokenizer, max_length=64, max_new_tokens=1)
    assert [found.truncated for found in evaluate(model, short, examples, 2)] == [True, True]


def test_pictures_reach_the_model_by_row(host):
    model, tokenizer = tiny_llama()
    torch.manual_seed(0)
    zeroinit.attach(
        model, zeroinit.ZeroInit(length=4, gate_init=0.7, condition=zeroinit.ImageCondition(depths=2, width=3))
    )
    llama._settled(model).eval()

    class Pictures:
        def features(self, paths):
            made = [torch.full((2, 3), 0.0 if path is None else float(path.stem)) for path in paths]
            return torch.stack(made), torch.tensor([path is not None for path in paths])

    examples = [
        Example("a", "Where?", " Orlo", ("yes", "no"), Path("3.png")),
        Example("b", "Who lives there?", " Mira", ("a", "b", "c"), None),
        Example("c", "When?", " 1903", (), Path("-2.png")),
    ]
    reader = LmReader(tokenizer, max_length=64, max_new_tokens=5, weigh_target=True, pictures=Pictures())
    said = evaluate(model, reader, examples, 3)
    plain = LmReader(tokenizer, max_length=64, max_new_tokens=5, weigh_target=True)
    for example, found in zip(examples, said, strict=True):
        features, mask = Pictures().features([example.image])
        with zeroinit.conditioned(model, features, mask):
            (expected,) = evaluate(model, plain, [example], 1)
        assert found.nll == pytest.approx(expected.nll, abs=1e-4)
        assert list(found.options) == pytest.approx(list(expected.options), abs=1e-4)
        assert found.text == expected.text
    batch = to_device(reader.collate(reader.fit(examples)), torch.device("cpu"))
    with zeroinit.conditioned(model, *batch.pop("prompt_condition")):
        expected_loss = reader.loss(model, batch).item()
    batch = reader.collate(reader.fit(examples))
    assert reader.loss(model, batch).item() == pytest.approx(expected_loss, abs=1e-6)


LONG = Example("long one", "Where does Mira live? " * 3, "in Orlo " * 10)


def test_what_is_too_long_is_refused_by_name(host):
    _, tokenizer = host
    with pytest.raises(
        InputError, match=r"long one: a prompt of \d+ tokens and \d+ after it are more than max_length = 32"
    ):
        LmReader(tokenizer, max_length=32).fit([LONG])
    with pytest.raises(InputError, match=r"long one: a prompt of .* and max_new_tokens = 500 are more than the 512"):
        LmReader(tokenizer, max_length=32, max_new_tokens=500).ask([LONG])
    with pytest.raises(InputError, match="the backbone reads 512 tokens: give less"):
        LmReader(tokenizer, max_length=513)
    with pytest.raises(InputError, match="c: its prompt, or one of its options, is empty"):
        LmReader(tokenizer, max_length=32).ask([Example("c", "Q", "", ("yes", ""))])


def test_what_is_too_long_is_cut_and_told_where_the_task_says_so(host):
    model, tokenizer = host
    reader = LmReader(tokenizer, max_length=32, weigh_target=True, cut=True)
    hopeless = Example("hopeless", "Where does Mira live? " * 9, "in Orlo")
    assert [row.id for row in reader.fit([LONG, hopeless, EXAMPLES[0]])] == ["long one", "a"]
    cut, none, whole = evaluate(model, reader, [LONG, hopeless, EXAMPLES[0]], 3)
    prompt = tokenizer(LONG.prompt)["input_ids"]
    target = tokenizer(LONG.target, add_special_tokens=False)["input_ids"][: 32 - len(prompt)]
    assert (cut.cut, cut.tokens) == (True, len(target))
    assert cut.nll == pytest.approx(-one_by_one(model, tokenizer, LONG.prompt, target), abs=1e-4)
    assert (none.cut, none.tokens, none.nll) == (True, 0, 0.0)
    assert (whole.cut, whole.tokens) == (False, 2)
    with pytest.raises(InputError, match="none of 1 examples leaves room for a target in max_length = 32 tokens"):
        reader.fit([hopeless])


def test_tokenizers_without_padding_or_with_an_end_of_their_own(host):
    model, tokenizer = host
    expected = evaluate(model, LmReader(tokenizer, max_length=64, weigh_target=True, max_new_tokens=3), EXAMPLES, 4)
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, bos_token="<s>", eos_token="</s>", model_max_length=64
    )
    assert made.pad_token_id is None
    assert evaluate(model, LmReader(made, max_length=64, weigh_target=True, max_new_tokens=3), EXAMPLES, 4) == expected

    made.bos_token = made.eos_token = "</s>"
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="</s> $A", special_tokens=[("</s>", 2)]
    )
    (row,) = LmReader(made, max_length=64).ask([EXAMPLES[2]])
    assert row.prompt.tolist() == made("Q")["input_ids"]
    assert row.prompt.tolist()[0] == 2 != row.prompt.tolist()[-1]

    class Ending:
        """As the tokenizer, but it ends what it begins."""

        model_max_length, eos_token_id, pad_token_id = 64, 2, 0
        decode = staticmethod(tokenizer.decode)

        def __call__(self, texts, add_special_tokens=True):
            ids = tokenizer(texts, add_special_tokens=add_special_tokens)["input_ids"]
            if not add_special_tokens:
                return {"input_ids": ids}
            return {"input_ids": [*ids, 2] if isinstance(texts, str) else [[*row, 2] for row in ids]}

    assert (
        evaluate(model, LmReader(Ending(), max_length=64, weigh_target=True, max_new_tokens=3), EXAMPLES, 4) == expected
    )
