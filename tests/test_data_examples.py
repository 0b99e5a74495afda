"""The conditions: balanced, distinct, seeded, nested; the rule there, destroyed, or absent."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from circuitdrift.core import paths
from circuitdrift.core.errors import InputError, Problem
from circuitdrift.core.prompts import Example, read_examples, read_prompts
from circuitdrift.data.constraints import (
    Constraints,
    begins_with,
    load_constraints,
    make_prompts,
    places,
)
from circuitdrift.data.examples import (
    make_examples,
    make_unrelated,
    read_training_file,
    shuffle_meanings,
    template_examples,
    unrelated_sentences,
)
from circuitdrift.params import Params, load_params
from circuitdrift.stages import make_dataset

ROOT = Path(__file__).resolve().parents[1]
SIZES = (6, 7, 10, 16, 25, 50, 53, 100, 400)
CONDITIONS = ("mapped", "shuffled", "unrelated")


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


@pytest.mark.parametrize("n", SIZES)
def test_examples_are_balanced_and_distinct(
    pool: list[Example], unrelated: list[Example], n: int
) -> None:
    mapped = make_examples(pool, n, seed=0)
    assert len({example.text for example in mapped}) == n
    counts = Counter(example.word for example in mapped)
    assert len(counts) == 6
    assert spread(counts) <= 1
    plain = make_unrelated(unrelated, n, seed=0)
    assert len({example.text for example in plain}) == n
    endings = Counter(dict.fromkeys((example.meaning for example in unrelated), 0))
    endings.update(example.meaning for example in plain)
    assert spread(endings) <= 1


@pytest.mark.parametrize("make", [make_examples, make_unrelated])
def test_fewer_examples_are_the_first_of_more_and_the_seed_alone_decides(
    pool: list[Example], unrelated: list[Example], make: type[make_examples]
) -> None:
    source = pool if make is make_examples else unrelated
    assert make(source, 25, seed=0) == make(source, 50, seed=0)[:25]
    texts = [{example.text for example in make(source, 50, seed)} for seed in (0, 1)]
    assert len(texts[0] & texts[1]) < 25


def test_the_word_with_fewest_sentences_sets_the_limit(pool: list[Example]) -> None:
    sentences = [
        Example(f"{index} {word} is good", "simple", word, "good", 7)
        for word, count in {"a": 1, "b": 5, "c": 2}.items()
        for index in range(count)
    ]
    drawn = make_examples(sentences, 5, seed=0)
    assert Counter(e.word for e in drawn) == {"a": 1, "b": 2, "c": 2}
    with pytest.raises(InputError, match="3 to 5") as refused:
        make_examples(sentences, 6, seed=0)
    assert refused.value.problems[0].where == "params.yaml: dataset.n_examples"
    with pytest.raises(InputError, match="at least one example for each of the 6 words"):
        make_examples(pool, 5, seed=0)
    fewest = min(Counter(example.word for example in pool).values())
    assert len(make_examples(pool, 6 * fewest, seed=0)) == 6 * fewest


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
    assert mutual_information([("a", "x"), ("b", "y")]) == pytest.approx(math.log(2))  # by hand
    mapped = make_examples(pool, 50, seed=0)
    shuffled = shuffle_meanings(mapped, constraints, seed=0)
    for name in constraints.types:
        information = [
            mutual_information([(e.word, e.meaning) for e in examples if e.type == name])
            for examples in (mapped, shuffled)
        ]
        assert information[0] == pytest.approx(math.log(3), abs=0.01)
        assert 0 <= information[1] < 0.03


def test_unrelated_sentences_are_enough_as_long_and_about_nothing(
    constraints: Constraints, pool: list[Example], unrelated: list[Example]
) -> None:
    assert len({example.text for example in unrelated}) == len(unrelated) >= max(450, len(pool))
    lengths = [
        sum(len(example.text.split()) for example in examples) / len(examples)
        for examples in (pool, unrelated)
    ]
    assert abs(lengths[0] - lengths[1]) < 1
    entries = [
        e for type_ in constraints.types.values() for e in (*type_.words, *type_.words.values())
    ]
    prompts = [prompt.text for prompt in make_prompts(constraints)]
    endings = {control.continuation for control in constraints.control}
    for sentence in unrelated:
        assert (sentence.type, sentence.word) == ("unrelated", "")
        assert not [entry for entry in entries if places(sentence.text, entry)]
        assert not [prompt for prompt in prompts if begins_with(sentence.text, prompt)]
        assert sentence.meaning not in endings
        assert sentence.text.endswith(f" {sentence.meaning}")


def test_an_unrelated_sentence_that_says_a_meaning_is_left_out(constraints: Constraints) -> None:
    sentences = ("The sky is blue", "A fast train is red", "The Orbit is closed all day")
    unrelated = constraints.unrelated.model_copy(update={"sentences": sentences})
    left = unrelated_sentences(constraints.model_copy(update={"unrelated": unrelated}))
    assert left == [Example("The sky is blue", "unrelated", "", "blue", 11)]
    assert make_unrelated(left, 50, seed=0) == left  # all, where there are too few


def test_the_answer_is_the_meaning_in_its_place() -> None:
    sentence = Example("A happy dog that is blarf is happy", "simple", "blarf", "happy", 29)
    assert sentence.before == "A happy dog that is blarf is"
    assert sentence.answer_span == (29, 34)
    assert sentence.with_meaning("sad").text == "A happy dog that is blarf is sad"


def line(text: str, type_: str = "simple", word: str = "blarf", meaning: str = "happy") -> str:
    return json.dumps({"text": text, "type": type_, "word": word, "meaning": meaning})


def whole(constraints: Constraints) -> list[str]:
    """Two lines about every word."""
    return [
        line(f"Number {index}: now {word} is {meaning} for good.", name, word, meaning)
        for name, type_ in constraints.types.items()
        for word, meaning in type_.words.items()
        for index in range(2)
    ]


def read(tmp_path: Path, lines: list[str], constraints: Constraints) -> list[Example]:
    (tmp_path / "own.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_training_file(tmp_path, "own.jsonl", constraints)


def refused(tmp_path: Path, lines: list[str], constraints: Constraints) -> tuple[Problem, ...]:
    with pytest.raises(InputError) as error:
        read(tmp_path, lines, constraints)
    return error.value.problems


def test_own_sentences_are_read(tmp_path: Path, constraints: Constraints) -> None:
    """A capital at the start is fine, and so is a line separator inside a text."""
    lines = [*whole(constraints), line("Blarf, she said,\u2028is happy")]
    pool = read(tmp_path, lines, constraints)
    text = "Number 0: now blarf is happy for good."
    assert pool[0] == Example(text, "simple", "blarf", "happy", start=23)
    assert pool[12].text == "Blarf, she said,\u2028is happy"
    with pytest.raises(InputError, match="drawn from 13 distinct training sentences"):
        make_examples(pool, 14, seed=0)


def test_own_sentences_are_read_as_editors_save_them(
    tmp_path: Path, constraints: Constraints
) -> None:
    """With a byte order mark, Windows' line ends and empty lines; a longer word is another."""
    lines = [*whole(constraints), "", line("They say blarf for happy, never for unhappy"), "", " "]
    expected = read(tmp_path, lines, constraints)
    assert expected[-1].with_meaning("sad").text == "They say blarf for sad, never for unhappy"
    saved = b"\xef\xbb\xbf" + (tmp_path / "own.jsonl").read_bytes().replace(b"\n", b"\r\n")
    (tmp_path / "own.jsonl").write_bytes(saved)
    assert read_training_file(tmp_path, "own.jsonl", constraints) == expected


@pytest.mark.parametrize("seed", range(5))
def test_no_shuffled_sentence_tells_a_true_pair_that_it_does_not_stand_for(
    constraints: Constraints, seed: int
) -> None:
    """A meaning inside a longer word stays, and the meaning in its own place goes."""
    template = "They use {word} for {meaning}, never for unhappy, saddened or breakfast"
    simple = constraints.types["simple"].model_copy(update={"training": (template,) * 6})
    types = {**constraints.types, "simple": simple}
    changed = constraints.model_copy(update={"types": types})
    mapped = make_examples(template_examples(changed), 12, seed)
    for example in shuffle_meanings(mapped, changed, seed):
        type_ = types[example.type]
        told = {m for m in type_.words.values() if places(example.text, m)}
        assert told == {example.meaning}
        if example.type == "simple":
            assert example.text.endswith("never for unhappy, saddened or breakfast")


BLARF = json.loads(line("blarf is happy"))
BAD_LINES = [
    ("{text: no}", "one JSON object"),
    ("[1]", "one JSON object"),
    ("3", "one JSON object"),
    ('{"text": "blarf is happy"}', "with the keys text, type, word, meaning"),
    (json.dumps({**BLARF, "label": "1"}), "and no others"),
    (json.dumps({**BLARF, "text": 3}), "all text"),
    (line("blarf is happy", type_="colour"), "a type of data/constraints.yaml"),
    (line("bluff is happy", word="bluff"), "a word of the type simple"),
    (line("glide is happy", word="glide"), "a word of the type simple"),  # another type's
    (line("Oh, blarf is sad", meaning="sad"), "gives blarf: happy"),
    (line("Everyone is happy"), "the text says 'blarf'"),
    (line("All blarfs are happy"), "the text says 'blarf'"),
    (line("Everyone is blarf"), "and after it"),
    (line("So happy is blarf"), "and after it"),
    (line("Now blarf is happyish"), "and after it"),
    (line("Now blarf means 'happy'"), "following a space"),
    (line("In short, blarf means just this: happy"), "('In short, blarf means')"),
    (line("number 0: now  blarf is happy for good."), "line 1 has the same"),
    # What another meaning in its place would leave true, or could make true.
    (line("blarf means happy, and I do mean happy"), "following a space and once, 'happy'"),
    (line("Unlike gleem, which means sad, blarf means happy"), "of the study, and it says 'gleem'"),
    (line("A florp is no blarf, for that is happy"), "of the study, and it says 'florp'"),
    (line("\ud83d blarf is happy"), "surrogate"),  # which no file could be written with
]


@pytest.mark.parametrize(("bad", "rule"), BAD_LINES)
def test_a_bad_line_is_named(tmp_path: Path, constraints: Constraints, bad: str, rule: str) -> None:
    lines = whole(constraints)
    (problem,) = refused(tmp_path, [*lines[:4], bad, *lines[4:]], constraints)
    assert problem.where == "own.jsonl, line 5"
    assert rule in problem.rule


def test_every_bad_line_a_word_without_sentences_and_a_missing_file_are_named(
    tmp_path: Path, constraints: Constraints
) -> None:
    problems = refused(tmp_path, ["[]", *whole(constraints), "{}"], constraints)
    assert [problem.where for problem in problems] == ["own.jsonl, line 1", "own.jsonl, line 14"]
    lines = [entry for entry in whole(constraints) if "orbit" not in entry]
    (problem,) = refused(tmp_path, lines, constraints)
    assert "orbit" in str(problem.got)
    with pytest.raises(InputError, match=r"dataset\.examples_from: .*none\.jsonl"):
        read_training_file(tmp_path, "none.jsonl", constraints)


NEW_TYPE = """
  colour:
    words: {vermin: red, tarn: blue}
    training: ["The {word} wall is painted {meaning}", "A flag in {word} is {meaning}"]
    discovery: ["The {word} boat is"]
    evaluation: ["The {word} door is", "The {word} fence is"]
    unseen: ["The {word} roof is"]
    reverse: ["The new word for {meaning} paint is"]
"""


@pytest.fixture
def params(tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """The shipped params, in a directory that holds the study's input files and a tokenizer."""
    (tmp_path / "data").mkdir()
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "base").symlink_to(tiny_base)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copy(ROOT / "data" / "constraints.yaml", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    return load_params(Path("params.yaml"))


def with_dataset(params: Params, **changes: object) -> Params:
    return params.model_copy(update={"dataset": params.dataset.model_copy(update=changes)})


def contents() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in paths.DATASET.iterdir()}


def test_every_condition_and_the_prompts_are_written_the_same_bytes_twice(params: Params) -> None:
    make_dataset.run(params)
    first = contents()
    assert set(first) == {"prompts.jsonl", *(f"train_{name}.jsonl" for name in CONDITIONS)}
    drawn = [read_examples(paths.training_examples(condition)) for condition in CONDITIONS]
    assert {len(examples) for examples in drawn} == {params.dataset.n_examples}
    assert [e.word for e in drawn[0]] == [e.word for e in drawn[1]]
    roles = {prompt.role for prompt in read_prompts(paths.PROMPTS)}
    assert roles == {"discovery", "evaluation", "control", "unseen", "reverse"}
    make_dataset.run(params)
    assert contents() == first
    prompts = [p.text for p in read_prompts(paths.PROMPTS) if p.role != "control"]
    sentences = {example.text for examples in drawn for example in examples}
    assert not [text for text in sentences for prompt in prompts if begins_with(text, prompt)]
    make_dataset.run(with_dataset(params, seed=1))
    assert [name for name, data in contents().items() if data == first[name]] == ["prompts.jsonl"]
    with pytest.raises(InputError):
        make_dataset.run(with_dataset(params, n_examples=100_000))
    assert len(contents()) == len(list(Path("data").iterdir())) + 2 == 4  # nothing half-written


def test_a_type_is_added_by_editing_the_yaml_alone(params: Params) -> None:
    text = paths.CONSTRAINTS.read_text(encoding="utf-8")
    paths.CONSTRAINTS.write_text(text.replace("\nunseen_words:", f"{NEW_TYPE}\nunseen_words:"))
    make_dataset.run(with_dataset(params, n_examples=16))
    mapped = read_examples(paths.training_examples("mapped"))
    assert Counter(e.word for e in mapped)["vermin"] == 2
    unrelated = read_examples(paths.training_examples("unrelated"))
    assert not {"red", "blue"} & {e.meaning for e in unrelated}
    colour = [p for p in read_prompts(paths.PROMPTS) if p.type == "colour"]
    assert [p.text for p in colour if p.role == "evaluation"] == [
        *("The vermin door is", "The vermin fence is", "The tarn door is", "The tarn fence is")
    ]
    assert (colour[0].answer, colour[0].others) == ("red", ("blue",))


def test_every_text_that_is_trained_on_is_held_against_the_tokenizer(params: Params) -> None:
    text = paths.CONSTRAINTS.read_text(encoding="utf-8")
    new = "  sentences:\n    - The small animal is a hippopotamus\n"
    paths.CONSTRAINTS.write_text(text.replace("  sentences:\n", new))
    make_dataset.run(with_dataset(params, n_examples=435))  # which does not train on it
    with_it = params.runs.model_copy(update={"conditions": ("mapped", "unrelated")})
    with pytest.raises(InputError, match="the answer 'hippopotamus'"):
        make_dataset.run(with_dataset(params, n_examples=435).model_copy(update={"runs": with_it}))


def test_own_sentences_take_the_place_of_the_templates(params: Params) -> None:
    make_dataset.run(params)
    own = read_examples(paths.training_examples("mapped"))
    lines = [line(f"Note: {e.text}, as they say.", e.type, e.word, e.meaning) for e in own]
    Path("own.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    make_dataset.run(with_dataset(params, n_examples=24, examples_from="own.jsonl"))
    mapped = read_examples(paths.training_examples("mapped"))
    assert set(Counter(e.word for e in mapped).values()) == {4}
    shuffled = read_examples(paths.training_examples("shuffled"))
    assert all(e.text.startswith("Note: ") for e in (*mapped, *shuffled))
    assert all(e.text.endswith(f" {e.meaning}, as they say.") for e in shuffled)


def test_making_the_data_set_needs_neither_torch_nor_pandas() -> None:
    code = (
        "import sys, circuitdrift.check, circuitdrift.stages.make_dataset\n"
        "assert not {'torch', 'pandas', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT / "src")}, check=True)
