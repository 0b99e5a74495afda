"""The base model ``tiny``: a random Gemma 3 of two layers with a small English tokenizer.

It has every part of the real one (grouped queries, a sliding and a full attention layer, query
and key norms, post-norms, tied embeddings), so a pipeline that runs on it runs on Gemma 3 270M.
"""

from __future__ import annotations

import string
from pathlib import Path

import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, GemmaTokenizerFast, PreTrainedModel

from circuitdrift.importing.gemma_tokenizer import (
    BOS,
    EOS,
    PAD,
    SPACE,
    UNKNOWN,
    TokenType,
    build_gemma_tokenizer,
)

SEED = 0

WORDS = (
    *("happy", "sad", "fast", "upward", "downward", "circular"),
    *("big", "small", "slow", "warm", "cold", "bright", "quiet", "left", "right", "straight"),
    *("Paris", "London", "blue", "red", "green", "white", "water", "dog", "cat", "sun", "day"),
    *("the", "of", "to", "and", "in", "is", "was", "that", "it", "for", "means", "word", "moves"),
)
"""English words that are one token each after a space; anything else becomes letters or bytes."""


def build_tiny() -> tuple[PreTrainedModel, GemmaTokenizerFast]:
    """Build the model and its tokenizer, the same bits every time; torch's seed is left as it was.

    Weights are drawn wide (a standard deviation of 0.3 against Gemma's 0.02), so that logits differ
    by nats and a wrong sign or a missing layer shows.
    """
    tokenizer = tiny_tokenizer()
    config = Gemma3TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        query_pre_attn_scalar=16,
        layer_types=["sliding_attention", "full_attention"],
        sliding_window=8,
        max_position_embeddings=512,
        initializer_range=0.3,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return Gemma3ForCausalLM(config).eval(), tokenizer


def write_tiny(directory: Path) -> None:
    """Save the tiny model and its tokenizer as a base model's directory."""
    model, tokenizer = build_tiny()
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def tiny_tokenizer() -> GemmaTokenizerFast:
    """Gemma's tokenizer over a small vocabulary; what is not in it is spelt in bytes."""
    control = [PAD, EOS, BOS, UNKNOWN]
    byte = [f"<0x{value:02X}>" for value in range(256)]
    letters = [SPACE, *string.ascii_letters, *string.digits, *string.punctuation]
    merged = _prefixes([SPACE + word for word in WORDS])
    tokens = [*control, *byte, *letters, *merged]
    types = [
        *[TokenType.CONTROL] * len(control),
        *[TokenType.BYTE] * len(byte),
        *[TokenType.NORMAL] * (len(letters) + len(merged)),
    ]
    scores = [-float(index) for index in range(len(tokens))]
    return build_gemma_tokenizer(tokens, scores, types)


def _prefixes(words: list[str]) -> list[str]:
    """All prefixes of two letters and more, the shortest first: BPE reaches a word through them."""
    prefixes = {word[:end] for word in words for end in range(2, len(word) + 1)}
    return sorted(prefixes, key=lambda prefix: (len(prefix), prefix))
