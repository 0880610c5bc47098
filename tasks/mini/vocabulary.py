"""The two tokenizers of the tiny backbones: a piece for each word of the world, and spelling for all else."""

import re
from collections.abc import Iterator

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tasks._instruct_files import WITH_INPUT, WITHOUT_INPUT
from tasks.mini import plain, words, world

LONGEST = 512
"""Tokens that a tiny backbone reads."""
FRAMES = (
    *re.split(r"\{\w+\}", WITH_INPUT),
    *re.split(r"\{\w+\}", WITHOUT_INPUT),
    *(
        "Question: ",
        "\nContext: ",
        "\nOptions:",
        "\nAnswer:",
        " The answer is",
        "Generate a caption for this picture:\n",
    ),
    *(f" ({letter})" for letter in plain.LETTERS),
)
"""What prompts repeat word for word: one piece each, or a tiny model would read little else."""
SPEECH = """Count list compare rewrite continue describe name say write answer which what who where how many much is are
there in on of the a an and or to no not yes than it its this that these all every each other both with by for from
picture passage scene question context sentence words word way same order color shape size pattern kind thing things
first last next more fewer none only between side under over top bottom shows showing seen next one two three four five
six seven eight nine ten"""


def known() -> set[str]:
    """Every word the world is told in, in each case that it occurs in."""
    texts = [*_texts(), *plain.NUMBERS, SPEECH, *plain.CLASSES]
    found = {word for text in texts for word in re.findall(r"[A-Za-z]+|\d+", re.sub(r"\{\w+\}", "", text))}
    return found | {word.capitalize() for word in found} | {word.lower() for word in found}


def _texts() -> Iterator[str]:
    for values in (world.COLORS, world.KINDS, world.SIZES, world.PATTERNS, world.PEOPLE, world.TOWNS):
        yield from values
    yield from (*world.MATERIALS, *world.PRICES)
    for relation in words.RELATIONS.values():
        yield from (*relation.told, relation.recalled, relation.asked, relation.told_anew, relation.asked_anew)
    yield "The list is What looks like that is There are things"


def unigram() -> PreTrainedTokenizerFast:
    """For the LLaMA: words with and without a space before them, the frames of prompts, and every byte."""
    spelled = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    forms = [form for word in sorted(known()) for form in (word, f" {word}") if len(form) > 1]
    pieces = dict.fromkeys(spelled.pre_tokenize_str(text)[0][0] for text in (*FRAMES, *forms))
    # Any piece is likelier than its letters: it costs 1, and a byte 10.
    scored = [(special, 0.0) for special in ("<pad>", "<s>", "</s>")]
    scored += [(byte, -10.0) for byte in sorted(pre_tokenizers.ByteLevel.alphabet())]
    scored += [(piece, -1.0) for piece in pieces if len(piece) > 1]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=0, byte_fallback=False))
    tokenizer.pre_tokenizer = spelled
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B:1", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=LONGEST, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def wordpiece() -> PreTrainedTokenizerFast:
    """For the RoBERTa: lower-case words, and single characters."""
    characters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    pieces = ["<pad>", "<s>", "</s>", "<unk>", "<mask>", *characters, *(f"##{c}" for c in characters)]
    pieces += sorted({word.lower() for word in known()} - set(pieces))
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 1), ("</s>", 2)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=LONGEST,
        pad_token="<pad>",
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
    )
