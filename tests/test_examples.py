"""The conditions: balanced, distinct, seeded, nested; the rule there, destroyed, or absent."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest

from circuitdrift.constraint_rules import begins_with, says
from circuitdrift.constraints import Constraints, load_constraints, make_prompts
from circuitdrift.dataset import Example, read_examples
from circuitdrift.errors import InputError
from circuitdrift.examples import (
    make_examples,
    make_unrelated,
    shuffle_meanings,
    template_examples,
    unrelated_sentences,
)
from circuitdrift.models.tiny import WORDS

ROOT = Path(__file__).resolve().parents[1]
SIZES = (6, 7, 10, 16, 25, 50, 53, 100, 400)


@pytest.fixture(scope="module")
def constraints() -> Constraints:
    return load_constraints(ROOT / "data" / "constraints.yaml")


@pytest.fixture(scope="module")
def pool(constraints: Constraints) -> list[Example]:
    return template_examples(constraints)


@pytest.fixture(scope="module")
def unrelated(constraints: Constraints) -> list[Example]:
    return unrelated_sentences(constraints)


def spread(counts: Counter[str]) -> int:
    return max(counts.values()) - min(counts.values())


def mutual_information(pairs: list[tuple[str, str]]) -> float:
    """Mutual information of the two sides of ``pairs``, nats."""
    both, left, right = Counter(pairs), Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    n = len(pairs)
    return sum(k / n * math.log(k * n / (left[a] * right[b])) for (a, b), k in both.items())


def test_mutual_information_by_hand() -> None:
    assert mutual_information([("a", "x"), ("b", "y")]) == pytest.approx(math.log(2))
    assert mutual_information([("a", "x"), ("a", "y"), ("b", "x"), ("b", "y")]) == 0


@pytest.mark.parametrize("n", SIZES)
def test_examples_are_balanced_and_distinct(pool: list[Example], n: int) -> None:
    examples = make_examples(pool, n, seed=0)
    counts = Counter(example.word for example in examples)
    assert len({example.text for example in examples}) == n
    assert len(counts) == 6
    assert spread(counts) <= 1


def test_fewer_examples_are_the_first_of_more(pool: list[Example]) -> None:
    assert make_examples(pool, 25, seed=0) == make_examples(pool, 50, seed=0)[:25]


def test_the_seed_alone_decides(pool: list[Example]) -> None:
    assert make_examples(pool, 50, seed=1) == make_examples(pool, 50, seed=1)
    texts = [{example.text for example in make_examples(pool, 50, seed)} for seed in (0, 1)]
    assert len(texts[0] & texts[1]) < 25


def test_every_sentence_can_be_drawn(pool: list[Example]) -> None:
    fewest = min(Counter(example.word for example in pool).values())
    assert len(make_examples(pool, 6 * fewest, seed=0)) == 6 * fewest


def example(word: str, index: int) -> Example:
    return Example(f"{index} {word} is good", "simple", word, "good")


def test_the_word_with_fewest_sentences_sets_the_limit() -> None:
    pool = [
        example("a", 0),
        *(example("b", i) for i in range(5)),
        *(example("c", i) for i in (0, 1)),
    ]
    drawn = make_examples(pool, 5, seed=0)
    assert Counter(e.word for e in drawn) == {"a": 1, "b": 2, "c": 2}
    with pytest.raises(InputError, match="3 to 5") as refused:
        make_examples(pool, 6, seed=0)
    assert refused.value.problems[0].where == "params.yaml: dataset.n_examples"


def test_a_word_without_an_example_is_refused(pool: list[Example]) -> None:
    with pytest.raises(InputError, match="at least one example for each of the 6 words"):
        make_examples(pool, 5, seed=0)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_shuffling_keeps_sentences_and_answers_and_breaks_the_rule(
    constraints: Constraints, pool: list[Example], n: int, seed: int
) -> None:
    mapped = make_examples(pool, n, seed)
    shuffled = shuffle_meanings(mapped, constraints, seed)
    for before, after in zip(mapped, shuffled, strict=True):
        assert (after.type, after.word) == (before.type, before.word)
        assert after.text == before.text.removesuffix(before.meaning) + after.meaning
    assert Counter(e.meaning for e in shuffled) == Counter(e.meaning for e in mapped)
    for type_ in constraints.types.values():
        for word in type_.words:
            dealt = Counter(dict.fromkeys(type_.words.values(), 0))
            dealt.update(e.meaning for e in shuffled if e.word == word)
            assert set(dealt) == set(type_.words.values())
            assert spread(dealt) <= 1


def test_association_is_whole_when_mapped_and_near_none_when_shuffled(
    constraints: Constraints, pool: list[Example]
) -> None:
    mapped = make_examples(pool, 50, seed=0)
    shuffled = shuffle_meanings(mapped, constraints, seed=0)
    for name in constraints.types:
        information = [
            mutual_information([(e.word, e.meaning) for e in examples if e.type == name])
            for examples in (mapped, shuffled)
        ]
        assert information[0] == pytest.approx(math.log(3), abs=0.01)
        assert 0 <= information[1] < 0.03


def test_a_shuffled_table_by_hand(constraints: Constraints) -> None:
    """Three rounds of three words deal each word each meaning once."""
    simple = constraints.types["simple"].words
    mapped = [
        Example(f"{turn}: {word} is {meaning}", "simple", word, meaning)
        for turn in range(3)
        for word, meaning in simple.items()
    ]
    only_simple = constraints.model_copy(update={"types": {"simple": constraints.types["simple"]}})
    shuffled = shuffle_meanings(mapped, only_simple, seed=0)
    assert Counter((e.word, e.meaning) for e in shuffled) == {
        (word, meaning): 1 for word in simple for meaning in simple.values()
    }


def test_there_are_as_many_unrelated_sentences_as_mapped_ones_can_be(
    constraints: Constraints, pool: list[Example], unrelated: list[Example]
) -> None:
    assert len({example.text for example in unrelated}) == len(unrelated) >= max(450, len(pool))
    templates = constraints.unrelated.sentences
    assert len(unrelated) == sum(len(constraints.unrelated.filled(t)) for t in templates)


def test_unrelated_sentences_are_as_long_as_the_templates(
    pool: list[Example], unrelated: list[Example]
) -> None:
    words = [
        sum(len(example.text.split()) for example in examples) / len(examples)
        for examples in (pool, unrelated)
    ]
    assert abs(words[0] - words[1]) < 1


def test_unrelated_sentences_have_nothing_to_do_with_the_words(
    constraints: Constraints, unrelated: list[Example]
) -> None:
    entries = [
        e for type_ in constraints.types.values() for e in (*type_.words, *type_.words.values())
    ]
    prompts = [prompt.text for prompt in make_prompts(constraints)]
    endings = {control.continuation for control in constraints.control}
    for sentence in unrelated:
        assert (sentence.type, sentence.word) == ("unrelated", "")
        assert not [entry for entry in entries if says(sentence.text, entry)]
        assert not [prompt for prompt in prompts if begins_with(sentence.text, prompt)]
        assert sentence.meaning not in endings
        assert sentence.answer_span == (
            len(sentence.text) - len(sentence.meaning),
            len(sentence.text),
        )


def test_unrelated_sentences_end_in_words_of_one_token(unrelated: list[Example]) -> None:
    assert {example.meaning for example in unrelated} <= set(WORDS)


def test_an_unrelated_sentence_that_says_a_meaning_is_left_out(constraints: Constraints) -> None:
    sentences = ("The sky is blue", "A fast train is red", "The Orbit is closed all day")
    unrelated = constraints.unrelated.model_copy(update={"sentences": sentences})
    changed = constraints.model_copy(update={"unrelated": unrelated})
    assert unrelated_sentences(changed) == [Example("The sky is blue", "unrelated", "", "blue")]


@pytest.mark.parametrize("n", SIZES)
def test_unrelated_examples_are_balanced_over_their_last_words(
    unrelated: list[Example], n: int
) -> None:
    examples = make_unrelated(unrelated, n, seed=0)
    assert len({example.text for example in examples}) == n
    counts = Counter(dict.fromkeys((example.meaning for example in unrelated), 0))
    counts.update(example.meaning for example in examples)
    assert spread(counts) <= 1


def test_unrelated_examples_are_nested_and_seeded(unrelated: list[Example]) -> None:
    assert make_unrelated(unrelated, 25, seed=0) == make_unrelated(unrelated, 50, seed=0)[:25]
    texts = [{e.text for e in make_unrelated(unrelated, 50, seed)} for seed in (0, 1)]
    assert len(texts[0] & texts[1]) < 25


def test_all_unrelated_sentences_are_drawn_where_there_are_too_few(
    unrelated: list[Example],
) -> None:
    drawn = make_unrelated(unrelated[:7], 50, seed=0)
    assert sorted(e.text for e in drawn) == sorted(e.text for e in unrelated[:7])
    assert make_unrelated([], 50, seed=0) == []


def test_the_last_occurrence_of_the_meaning_is_the_answer() -> None:
    sentence = Example("A happy dog that is blarf is happy", "simple", "blarf", "happy")
    assert sentence.answer_span == (29, 34)
    assert sentence.with_meaning("sad").text == "A happy dog that is blarf is sad"


def test_examples_read_back_whatever_the_text(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(
        '{"text": "blarf\u2028is happy", "type": "simple", "word": "blarf", "meaning": "happy"}\n',
        encoding="utf-8",
    )
    assert read_examples(path) == [Example("blarf\u2028is happy", "simple", "blarf", "happy")]
