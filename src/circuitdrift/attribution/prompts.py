"""Prompts as attribution takes them: tokens, the part of the prompt each belongs to, the target."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast

from circuitdrift.attribution.targets import Target
from circuitdrift.config.attribution import Attribution
from circuitdrift.dataset import Prompt
from circuitdrift.graph import Circuit


@dataclass(frozen=True)
class TokenisedPrompt:
    """A prompt ready for attribution.

    Attributes:
        segments: for each token one of :data:`circuitdrift.identifiers.SEGMENTS`.
        with_graph: whether edges are wanted beside effects.
    """

    id: str
    tokens: tuple[int, ...]
    segments: tuple[str, ...]
    target: Target
    with_graph: bool

    @classmethod
    def of(cls, circuit: Circuit) -> TokenisedPrompt:
        """The prompt of a circuit, to be traced again in another model."""
        return cls(
            id=circuit.prompt,
            tokens=circuit.tokens,
            segments=circuit.segments,
            target=Target(circuit.answer, circuit.others),
            with_graph=circuit.graph is not None,
        )


def choose_prompts(prompts: Sequence[Prompt], settings: Attribution) -> dict[Prompt, bool]:
    """The first prompts of each word and role, and the first control prompts.

    Returns:
        for each, in their order, whether it gets a graph.
    """
    most = {
        "discovery": (settings.discovery_prompts_per_word, settings.graph_prompts_per_word),
        "evaluation": (settings.evaluation_prompts_per_word, 0),
        "control": (settings.control_prompts, settings.graph_control_prompts),
    }
    chosen: dict[Prompt, bool] = {}
    seen: Counter[tuple[str, str | None]] = Counter()
    for prompt in prompts:
        n_circuits, n_graphs = most.get(prompt.role, (0, 0))
        place = seen[prompt.role, prompt.word]
        if place < n_circuits:
            chosen[prompt] = place < n_graphs
        seen[prompt.role, prompt.word] += 1
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
