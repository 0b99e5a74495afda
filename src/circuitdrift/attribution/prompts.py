"""Prompts as attribution takes them: tokens, the part of the prompt each belongs to, the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast

from circuitdrift.attribution.targets import Target
from circuitdrift.config import Attribution
from circuitdrift.dataset import Prompt


@dataclass(frozen=True)
class TokenisedPrompt:
    """A prompt ready for attribution.

    Attributes:
        segments: for each token one of :data:`circuitdrift.identifiers.SEGMENTS`.
    """

    id: str
    tokens: tuple[int, ...]
    segments: tuple[str, ...]
    target: Target


def choose_prompts(prompts: Sequence[Prompt], settings: Attribution) -> list[Prompt]:
    """The first discovery prompts of each word, and the first control prompts."""
    most = {
        "discovery": settings.discovery_prompts_per_word,
        "control": settings.control_prompts,
    }
    chosen: list[Prompt] = []
    seen: dict[str | None, int] = {}
    for prompt in prompts:
        if prompt.role not in most:
            continue
        seen[prompt.word] = seen.get(prompt.word, 0) + 1
        if seen[prompt.word] <= most[prompt.role]:
            chosen.append(prompt)
    return chosen


def segment_tokens(
    tokenizer: PreTrainedTokenizerFast, text: str, word: str | None
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Token ids of ``text`` and the segment of each.

    Raises:
        ValueError: if ``word`` is not in ``text``.
    """
    encoding = tokenizer(text, return_offsets_mapping=True)
    begin, end = len(text), len(text)
    if word is not None:
        begin = text.rindex(word)
        end = begin + len(word)
    segments = []
    for span_begin, span_end in encoding["offset_mapping"]:
        if span_begin == span_end:
            segments.append("start")
        elif span_end <= begin:
            segments.append("before word")
        elif span_begin < end:
            segments.append("word")
        else:
            segments.append("after word")
    segments[-1] = "last"
    return tuple(encoding["input_ids"]), tuple(segments)
