"""Gemma's tokenizer, built from a vocabulary as GGUF files carry it.

transformers rebuilds it from GGUF as a Unigram model, which splits "Once" into "On" and "ce".
Gemma's tokenizer is BPE in SentencePiece's sense: of all adjacent pieces whose union is in the
vocabulary, merge those with the union of the highest score; what no piece covers becomes bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import GemmaTokenizerFast

SPACE = "▁"
BOS, EOS, PAD, UNKNOWN = "<bos>", "<eos>", "<pad>", "<unk>"


class TokenType(IntEnum):
    """Types of tokens in GGUF's ``tokenizer.ggml.token_type``."""

    NORMAL = 1
    CONTROL = 3
    USER_DEFINED = 4
    BYTE = 6


def build_gemma_tokenizer(
    tokens: Sequence[str], scores: Sequence[float], types: Sequence[int]
) -> GemmaTokenizerFast:
    """Build the tokenizer whose token ``tokens[i]`` has id ``i``.

    Control tokens are special tokens. User-defined tokens (runs of spaces and line breaks, tags)
    are cut out of the text before any merge, the longest first, as SentencePiece does. ``<bos>``
    is put in front of every text.

    Args:
        tokens: ``[n_tokens]``; a space inside a normal token is written "▁".
        scores: ``[n_tokens]``; of two possible merges the one of the higher score comes first.
        types: ``[n_tokens]``, values of :class:`TokenType`.
    """
    normal = {
        token: score
        for token, score, kind in zip(tokens, scores, types, strict=True)
        if kind == TokenType.NORMAL
    }
    backend = Tokenizer(
        models.BPE(
            vocab={token: index for index, token in enumerate(tokens)},
            merges=ranked_merges(normal),
            unk_token=UNKNOWN,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    backend.normalizer = normalizers.Replace(" ", SPACE)
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    backend.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    backend.add_tokens(_added(tokens, types, TokenType.USER_DEFINED))
    backend.add_special_tokens(_added(tokens, types, TokenType.CONTROL))
    return GemmaTokenizerFast(
        tokenizer_object=backend,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNKNOWN,
        add_bos_token=True,
        add_eos_token=False,
    )


def ranked_merges(scores: dict[str, float]) -> list[tuple[str, str]]:
    """Every split of a token into two tokens, by descending score of the merged token.

    Splits of one token, and of tokens of equal score, stand in the order of the vocabulary.
    """
    by_score = sorted(scores, key=lambda token: -scores[token])
    return [
        (token[:cut], token[cut:])
        for token in by_score
        for cut in range(1, len(token))
        if token[:cut] in scores and token[cut:] in scores
    ]


def _added(tokens: Sequence[str], types: Sequence[int], kind: TokenType) -> list[AddedToken]:
    return [
        AddedToken(token, normalized=False, special=kind == TokenType.CONTROL)
        for token, its_kind in zip(tokens, types, strict=True)
        if its_kind == kind
    ]
