"""What ablation puts in place: means by segment, and another word's activations aligned."""

from __future__ import annotations

import pytest
import torch

from circuitdrift.errors import InputError
from circuitdrift.interventions.ablation import (
    counterfactual_values,
    mean_values,
    prepare,
    segment_means,
)
from circuitdrift.interventions.prompts import (
    TargetPrompt,
    aligned_positions,
    counterparts,
    first_per_word,
)
from circuitdrift.interventions.runs import Edit, Recording, edited_targets, targets
from linearised import random_model


def prompt(
    word: str = "blarf",
    *,
    n_word: int = 1,
    template: str = "a",
    n_before: int = 1,
    n_after: int = 1,
    type_: str = "simple",
) -> TargetPrompt:
    segments = ("start", *["before word"] * n_before, *["word"] * n_word)
    segments += ("after word",) * n_after + ("last",)
    return TargetPrompt(
        id=f"{word}-{template}",
        type=type_,
        word=word,
        template=template,
        tokens=tuple(range(2, 2 + len(segments))),
        segments=segments,
        answer=3,
        others=(30, 17),
    )


def numbered(*prompts: TargetPrompt) -> Recording:
    """One layer, one neuron: its activation is 10 times the prompt's place plus the position."""
    return Recording(
        tuple(
            10.0 * index + torch.arange(len(one.tokens)).float().view(1, -1, 1)
            for index, one in enumerate(prompts)
        ),
        torch.zeros(len(prompts)),
    )


def test_a_word_of_other_length_is_aligned_from_its_end() -> None:
    # start, before, word, after, last
    one, three = prompt(n_word=1), prompt("gleem", n_word=3)
    assert aligned_positions(one, three) == [0, 1, 4, 5, 6]
    assert aligned_positions(three, one) == [0, 1, 2, 2, 2, 3, 4]
    two = prompt("zephyr", n_word=2)
    assert aligned_positions(three, two) == [0, 1, 2, 2, 3, 4, 5]
    assert aligned_positions(two, two) == list(range(6))


def test_a_prompt_that_ends_in_its_word_is_aligned_too() -> None:
    # the last token is the word's last: start, before, [word ...,] last
    one, three = prompt(n_word=0, n_after=0), prompt("gleem", n_word=2, n_after=0)
    assert aligned_positions(one, three) == [0, 1, 4]
    assert aligned_positions(three, one) == [0, 1, 2, 2, 2]


def test_a_space_of_its_own_before_one_word_is_aligned_too() -> None:
    # start, before, space, word, after, last against start, before, word, word, after, last
    apart, joined = prompt(n_before=2), prompt("gleem", n_word=2)
    assert aligned_positions(apart, joined) == [0, 1, 1, 3, 4, 5]
    assert aligned_positions(joined, apart) == [0, 1, 3, 3, 4, 5]


def test_prompts_of_different_templates_are_not_aligned() -> None:
    with pytest.raises(ValueError, match="do not share a template"):
        aligned_positions(prompt(n_before=3), prompt("gleem"))
    with pytest.raises(ValueError, match="do not share a template"):
        aligned_positions(prompt(n_after=2), prompt("gleem"))


def test_the_counterpart_is_the_template_with_the_next_word_of_the_type() -> None:
    names = [("blarf", "simple"), ("glide", "spatial"), ("gleem", "simple"), ("orbit", "spatial")]
    asked = [
        prompt(word, template=template, type_=type_)
        for word, type_ in [*names, ("zephyr", "simple")]
        for template in "ab"
    ]
    found = [asked[index].id for index in counterparts(asked)]
    assert found == [
        *("gleem-a", "gleem-b", "orbit-a", "orbit-b", "zephyr-a", "zephyr-b"),
        *("glide-a", "glide-b", "blarf-a", "blarf-b"),
    ]


def test_a_prompt_without_a_counterpart_is_refused() -> None:
    with pytest.raises(ValueError, match="blarf-a has no counterpart"):
        counterparts([prompt()])
    with pytest.raises(ValueError, match="blarf-b has no counterpart"):
        counterparts([prompt(), prompt(template="b"), prompt("gleem")])


def test_counterfactual_values_are_the_counterparts_activations() -> None:
    asked = [prompt(), prompt("gleem", n_word=3)]
    one, three = counterfactual_values(numbered(*asked), asked)
    assert one.flatten().tolist() == [10, 11, 14, 15, 16]
    assert three.flatten().tolist() == [0, 1, 2, 2, 2, 3, 4]


def test_means_are_over_all_tokens_of_a_segment() -> None:
    asked = [prompt(), prompt("gleem", n_word=3, n_before=0)]
    # activations: 0 1 2 3 4 and 10, 11 12 13, 14, 15
    means = segment_means(numbered(*asked), asked)
    assert means.flatten().tolist() == [5, 1, 9.5, 8.5, 9.5]
    (values,) = mean_values(means, [prompt(n_word=2)])
    assert values.flatten().tolist() == [5, 1, 9.5, 9.5, 8.5, 9.5]


def test_a_segment_without_a_mean_is_refused_where_it_is_needed() -> None:
    found_on = [prompt(n_before=0)]
    means = segment_means(numbered(*found_on), found_on)
    assert len(mean_values(means, found_on)) == 1
    with pytest.raises(InputError, match="without 'before word', which gleem-a has"):
        mean_values(means, [prompt("gleem")])


def test_the_first_prompts_of_each_word() -> None:
    asked = [prompt(template=name) for name in "abc"] + [prompt("gleem", template=t) for t in "ab"]
    chosen = first_per_word(asked, 2, "validation.some", "attribution.many")
    assert [one.id for one in chosen] == ["blarf-a", "blarf-b", "gleem-a", "gleem-b"]
    with pytest.raises(InputError, match=r"validation\.some: got 3") as refused:
        first_per_word(asked, 3, "validation.some", "attribution.many")
    assert "set attribution.many to 3 or more, or validation.some to 2" in str(refused.value)
    with pytest.raises(InputError, match="got 1"):
        first_per_word([], 1, "validation.some", "attribution.many")


def test_a_subject_knows_both_ends_of_its_curves() -> None:
    model = random_model("Gemma3ForCausalLM")
    asked = [prompt(), prompt("gleem", n_word=3)]
    subject = prepare(model, asked, asked, batch_size=1)
    torch.testing.assert_close(subject.full, targets(model, asked))
    assert subject.shortest_first == [0, 1]
    for ablation in ("mean", "counterfactual"):
        for index, one in enumerate(asked):
            values = subject.values[ablation][index]
            everything = torch.ones_like(values, dtype=torch.bool)
            empty = edited_targets(model, [Edit(one, everything, values)])
            torch.testing.assert_close(subject.empty[ablation][index], empty[0])
    # the other prompt's own neurons, but not its attention: both words are of equal tokens before
    assert subject.empty["mean"][0] != subject.empty["counterfactual"][0]
