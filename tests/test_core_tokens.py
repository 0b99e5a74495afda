"""Texts in tokens: where an answer stands, and what no text may spell."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tokenizers import Tokenizer, normalizers
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from circuitdrift.core.errors import InputError
from circuitdrift.core.prompts import Example, Prompt
from circuitdrift.core.tokens import answer_id, check_tokens, encode, encode_example

MEANINGS = ("happy", "sad")
PROMPT = Prompt("p", "discovery", "simple", "it", "{word} is", "it is", 0, "happy", MEANINGS)
EXAMPLE = Example("it is happy to be fast.", "simple", "it", "happy", 6)


def test_a_text_has_the_beginning_token_in_front_and_the_characters_asked_for_marked(
    tiny_tokenizer: Tokenizer,
) -> None:
    encoded = encode(tiny_tokenizer, "it is happy!", (6, 11))
    tokens = [tiny_tokenizer.id_to_token(token) for token in encoded.ids]
    assert tokens == ["<bos>", "i", "t", "▁is", "▁happy", "!"]
    assert (encoded.n_front, encoded.marked) == (1, (4,))


@pytest.mark.parametrize("text", ["<bos>it is", "it is <eos>", "it <pad> is"])
def test_a_special_token_in_a_text_is_refused(tiny_tokenizer: Tokenizer, text: str) -> None:
    with pytest.raises(InputError, match=r"spells a special token.*<(bos|eos|pad)>"):
        encode(tiny_tokenizer, text)
    with pytest.raises(InputError, match=r"spells a special token"):
        check_tokens(tiny_tokenizer, [replace(PROMPT, text=text)], [])


@pytest.mark.parametrize("text", ["😀 שלום “curly” a\u00a0b", "bos < eos", "NA nan None NULL"])
def test_any_other_text_is_read(tiny_tokenizer: Tokenizer, text: str) -> None:
    assert tiny_tokenizer.decode(encode(tiny_tokenizer, text).ids[1:]) == text


def test_a_long_text_is_read_whole(tiny_tokenizer: Tokenizer) -> None:
    text = " ".join(["well"] * 2800)
    assert len(encode(tiny_tokenizer, text, (0, len(text))).marked) > 2800


def test_an_answer_is_one_token_behind_its_prompt(tiny_tokenizer: Tokenizer) -> None:
    happy = tiny_tokenizer.token_to_id("▁happy")
    assert answer_id(tiny_tokenizer, "it is", "happy") == happy
    assert encode_example(tiny_tokenizer, EXAMPLE).marked_ids == [happy]
    with pytest.raises(
        InputError, match=r"answer 'blarf'.*one token.*'it is'.*'▁bl', 'a', 'r', 'f'"
    ):
        answer_id(tiny_tokenizer, "it is", "blarf")


def test_every_answer_that_is_not_one_token_is_named_once(tiny_tokenizer: Tokenizer) -> None:
    """A reverse prompt's answer and a control's may be several; a usage sentence has none."""
    reverse = replace(PROMPT, role="reverse", answer="blarf", answers=("blarf", "gleem"))
    usage = replace(EXAMPLE, meaning="joyful", start=None)
    several = [reverse, replace(reverse, role="control"), replace(reverse, role="substitution")]
    check_tokens(tiny_tokenizer, [PROMPT, *several], [EXAMPLE, usage])
    with pytest.raises(InputError, match="spells a special token"):
        check_tokens(tiny_tokenizer, [], [replace(usage, text="it is <eos>")])
    wrong = replace(PROMPT, answer="joyful", answers=("joyful", "gloomy", "sad"))
    glued = replace(EXAMPLE, text="it is 'happy", start=7)
    with pytest.raises(InputError) as refused:
        check_tokens(tiny_tokenizer, [wrong, wrong], [glued])
    assert [problem.where for problem in refused.value.problems] == [
        *("the answer 'joyful'", "the answer 'gloomy'", "the answer 'happy'")
    ]


def test_meanings_that_are_one_and_the_same_token_are_named_by_type() -> None:
    """A tokenizer that knows neither accents nor two of the words."""
    words = Tokenizer(WordLevel({"[UNK]": 0, "it": 1, "is": 2, "cafe": 3, "red": 4}, "[UNK]"))
    words.pre_tokenizer = Whitespace()
    words.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])
    accents = replace(PROMPT, answer="café", answers=("café", "red", "cafe"))
    unknown = replace(PROMPT, type="spatial", answer="up", answers=("up", "red", "down"))
    other = replace(PROMPT, type="other", answer="red", answers=("red", "cafe"))
    with pytest.raises(InputError) as refused:
        check_tokens(words, [accents, accents, unknown, other], [])
    assert [(problem.where, problem.got) for problem in refused.value.problems] == [
        ("dataset.constraints: types.simple.words", "café, cafe"),
        ("dataset.constraints: types.spatial.words", "up, down"),
    ]
    assert all(problem.remedy for problem in refused.value.problems)
