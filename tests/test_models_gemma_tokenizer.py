"""Gemma's tokenizer on a vocabulary small enough to merge by hand, and on the real one."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer, GemmaTokenizerFast

from circuitdrift.models.gemma_tokenizer import TokenType, build_gemma_tokenizer, ranked_merges
from circuitdrift.models.loading import load_tokenizer

CONTROL = ("<pad>", "<eos>", "<bos>", "<unk>")
USER_DEFINED = ("\n", "\n\n", "  ")
BYTES = tuple(f"<0x{value:02X}>" for value in range(256))
NORMAL = ("▁", "a", "b", "c", "ab", "bc", "abc", "▁a", "▁ab")
SCORES = (-9.0, -9.0, -9.0, -9.0, -3.0, -1.0, -2.0, -5.0, -4.0)


@pytest.fixture(scope="module")
def tokenizer() -> GemmaTokenizerFast:
    other = (*CONTROL, *USER_DEFINED, *BYTES)
    types = (
        *[TokenType.CONTROL] * len(CONTROL),
        *[TokenType.USER_DEFINED] * len(USER_DEFINED),
        *[TokenType.BYTE] * len(BYTES),
        *[TokenType.NORMAL] * len(NORMAL),
    )
    return build_gemma_tokenizer((*other, *NORMAL), (*[0.0] * len(other), *SCORES), types)


def pieces(tokenizer: GemmaTokenizerFast, text: str) -> list[str]:
    return tokenizer.convert_ids_to_tokens(tokenizer.encode(text, add_special_tokens=False))


def test_merges_are_all_splits_into_two_tokens_best_token_first() -> None:
    assert ranked_merges(dict(zip(NORMAL, SCORES, strict=True))) == [
        ("b", "c"),  # -1
        ("a", "bc"),  # -2, abc has two splits
        ("ab", "c"),
        ("a", "b"),  # -3
        ("▁", "ab"),  # -4
        ("▁a", "b"),
        ("▁", "a"),  # -5
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("abc", ["abc"]),  # b+c (-1), then a+bc (-2)
        ("ab", ["ab"]),
        ("bca", ["bc", "a"]),
        (" ab", ["▁ab"]),  # a+b (-3) before ▁+a (-5), then ▁+ab (-4)
        ("cab ab", ["c", "ab", "▁ab"]),
        (" abc", ["▁", "abc"]),  # bc and abc come first, and no token is ▁abc
        ("a  b", ["a", "  ", "b"]),  # user-defined tokens are cut out first
        ("a\n\n\na", ["a", "\n\n", "\n", "a"]),  # the longest of them first
        ("aéb", ["a", "<0xC3>", "<0xA9>", "b"]),  # what no token covers becomes bytes
        ("a<eos>b", ["a", "<eos>", "b"]),
    ],
)
def test_pieces_are_those_of_merging_by_hand(
    tokenizer: GemmaTokenizerFast, text: str, expected: list[str]
) -> None:
    assert pieces(tokenizer, text) == expected
    assert tokenizer.decode(tokenizer.encode(text)) == f"<bos>{text}"


def test_ids_are_places_in_the_vocabulary_after_one_bos(tokenizer: GemmaTokenizerFast) -> None:
    first_normal = len(CONTROL) + len(USER_DEFINED) + len(BYTES)
    assert tokenizer.encode("  ab") == [2, 6, first_normal + 4]
    assert tokenizer.encode("") == [2]


def test_saved_and_loaded_by_transformers_it_is_the_same(
    tokenizer: GemmaTokenizerFast, tmp_path: Path
) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = " abc cab\n\n\n  éa"
    assert loaded.encode(text) == tokenizer.encode(text)
    assert loaded.all_special_tokens == tokenizer.all_special_tokens


def test_the_real_tokenizer_gives_the_ids_of_sentencepiece(gemma_base: Path) -> None:
    real = load_tokenizer(gemma_base)
    text = "Once upon a time, there was  a girl.\n\n\nShe ate crème brûlée \U000123ab in 1999."
    # from the sentencepiece library, given the same vocabulary as a BPE model with byte fallback
    expected = (
        *(14946, 3324, 496, 990, 236764, 993, 691, 138, 236746, 3953, 236761, 109, 5778, 29797),
        *(100479, 125501, 155666, 236743, 478, 384, 380, 409, 528, 236743, 236770, 236819),
        *(236819, 236819, 236761),
    )
    assert tuple(real.encode(text, add_special_tokens=False)) == expected
