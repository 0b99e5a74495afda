"""The two conditions: balanced, distinct, seeded, nested; the association there, or destroyed."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest

from circuitdrift.constraints import Constraints, load_constraints
from circuitdrift.dataset import Example, read_examples
from circuitdrift.errors import InputError
from circuitdrift.examples import make_examples, shuffle_meanings, template_examples

ROOT = Path(__file__).resolve().parents[1]
SIZES = (6, 7, 10, 16, 25, 50, 53, 100, 400)


@pytest.fixture(scope="module")
def constraints() -> Constraints:
    return load_constraints(ROOT / "data" / "constraints.yaml")


@pytest.fixture(scope="module")
def pool(constraints: Constraints) -> list[Example]:
    return template_examples(constraints)


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
