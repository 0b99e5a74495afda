"""What ablation puts in place: means by segment, and another word's activations aligned."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from circuit_samples import PROMPT
from circuitdrift.core.errors import InputError
from circuitdrift.core.prompts import TracedPrompt
from circuitdrift.interventions.ablation import (
    aligned_positions,
    counterfactual_values,
    counterparts,
    mean_values,
    prepare,
    segment_means,
)
from circuitdrift.interventions.hooks import Edit, Recording, answer_logits, run_edits, target
from linearised import random_model


def prompt(
    word: str = "blarf",
    *,
    n_word: int = 1,
    template: str = "a",
    n_before: int = 1,
    n_after: int = 1,
    type_: str = "simple",
) -> TracedPrompt:
    segments = ("start", *["before word"] * n_before, *["word"] * n_word)
    segments += ("after word",) * n_after + ("last",)
    return replace(
        PROMPT,
        id=f"{word}-{template}",
        type=type_,
        word=word,
        template=template,
        tokens=tuple(range(2, 2 + len(segments))),
        segments=segments,
    )


def numbered(*prompts: TracedPrompt) -> Recording:
    """One layer, one neuron: its activation is 10 times the prompt's place plus the position."""
    return Recording(
        tuple(
            10.0 * index + torch.arange(len(one.tokens)).float().view(1, -1, 1)
            for index, one in enumerate(prompts)
        ),
        (),
    )


ONE, TWO, THREE = (prompt(f"word{n}", n_word=n) for n in (1, 2, 3))
# The last token is the word's last: start, before, [word ...,] last.
ONE_LAST, THREE_LAST = (prompt(f"word{n}", n_word=n - 1, n_after=0) for n in (1, 3))
# start, before, space, word, after, last against start, before, word, word, after, last.
APART = prompt(n_before=2)


@pytest.mark.parametrize(
    ("one", "other", "positions"),
    [
        (ONE, THREE, [0, 1, 4, 5, 6]),
        (THREE, ONE, [0, 1, 2, 2, 2, 3, 4]),
        (THREE, TWO, [0, 1, 2, 2, 3, 4, 5]),
        (TWO, TWO, [0, 1, 2, 3, 4, 5]),
        (ONE_LAST, THREE_LAST, [0, 1, 4]),
        (THREE_LAST, ONE_LAST, [0, 1, 2, 2, 2]),
        (APART, TWO, [0, 1, 1, 3, 4, 5]),
        (TWO, APART, [0, 1, 3, 3, 4, 5]),
    ],
)
def test_a_word_is_aligned_from_its_end(
    one: TracedPrompt, other: TracedPrompt, positions: list[int]
) -> None:
    assert aligned_positions(one, other) == positions


@pytest.mark.parametrize("other", [prompt(n_before=3), prompt(n_after=2)])
def test_prompts_of_different_templates_are_not_aligned(other: TracedPrompt) -> None:
    with pytest.raises(ValueError, match="do not share a template"):
        aligned_positions(other, ONE)


def test_the_counterpart_is_the_template_with_the_next_word_of_the_type() -> None:
    names = [("blarf", "simple"), ("glide", "spatial"), ("gleem", "simple"), ("orbit", "spatial")]
    asked = [
        prompt(word, template=template, type_=type_)
        for word, type_ in [*names, ("zephyr", "simple")]
        for template in "ab"
    ]
    assert [asked[index].id for index in counterparts(asked)] == [
        *("gleem-a", "gleem-b", "orbit-a", "orbit-b", "zephyr-a", "zephyr-b"),
        *("glide-a", "glide-b", "blarf-a", "blarf-b"),
    ]


def test_counterfactual_values_are_the_counterparts_activations() -> None:
    one, three = counterfactual_values(numbered(ONE, THREE), [ONE, THREE])
    assert one.flatten().tolist() == [10, 11, 14, 15, 16]
    assert three.flatten().tolist() == [0, 1, 2, 2, 2, 3, 4]


def test_means_are_over_all_tokens_of_a_segment() -> None:
    asked = [ONE, prompt("gleem", n_word=3, n_before=0)]
    # activations: 0 1 2 3 4 and 10, 11 12 13, 14, 15
    means = segment_means(numbered(*asked), asked)
    assert means.flatten().tolist() == [5, 1, 9.5, 8.5, 9.5]
    (values,) = mean_values(means, [TWO])
    assert values.flatten().tolist() == [5, 1, 9.5, 9.5, 8.5, 9.5]


def test_a_segment_without_a_mean_is_refused_where_it_is_needed() -> None:
    traced = [prompt(n_before=0)]
    means = segment_means(numbered(*traced), traced)
    assert len(mean_values(means, traced)) == 1
    with pytest.raises(InputError, match="without a part that word1-a has"):
        mean_values(means, [ONE])


def test_a_subject_knows_both_ends_of_its_curves() -> None:
    model = random_model("Gemma3ForCausalLM")
    asked = [replace(THREE, answers=(30, 3, 17), answer=2), replace(ONE, answers=(9, 5), answer=1)]
    subject = prepare(model, [ONE, THREE], asked, batch_size=1)
    logits = answer_logits(model, asked)
    assert subject.full == pytest.approx(list(map(target, asked, logits)), abs=1e-5)
    assert subject.empty["mean"][0] != subject.empty["counterfactual"][0]
    for ablation in ("mean", "counterfactual"):
        for index, one in enumerate(asked):
            values = subject.values[ablation][index]
            everywhere = dict.fromkeys(range(3), torch.ones(values.shape[1:], dtype=torch.bool))
            ((_, _, empty),) = run_edits(model, [({}, Edit(one, everywhere, values))], 1)
            assert subject.empty[ablation][index] == pytest.approx(target(one, empty), abs=1e-5)
