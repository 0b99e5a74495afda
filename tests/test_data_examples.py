"""The conditions: balanced, distinct, seeded by run; the rule there, moved, destroyed, absent."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import asdict
from itertools import combinations
from pathlib import Path

import pytest

from circuitdrift.core import paths
from circuitdrift.core.errors import InputError, Problem
from circuitdrift.core.prompts import Example, read_examples, read_prompts
from circuitdrift.core.study import ASSIGNED, Run
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
    refused_count,
    run_examples,
    shuffle_meanings,
    template_examples,
    unrelated_sentences,
)
from circuitdrift.data.pool import read_training_file, training_pool
from circuitdrift.params import Params, load_params
from circuitdrift.stages import make_dataset

ROOT = Path(__file__).resolve().parents[1]
SIZES = (6, 7, 10, 16, 25, 50, 53, 100, 400)
SEEDS = range(4)


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
    mapped = make_examples(pool, n, "mapped-0")
    assert len({example.text for example in mapped}) == n
    counts = Counter(example.word for example in mapped)
    assert len(counts) == 6
    assert spread(counts) <= 1
    plain = make_unrelated(unrelated, n, "unrelated-0")
    assert len({example.text for example in plain}) == n
    endings = Counter(dict.fromkeys((example.meaning for example in unrelated), 0))
    endings.update(example.meaning for example in plain)
    assert spread(endings) <= 1


def of_run(name: str, constraints: Constraints, pool: list[Example], n: int = 50) -> list[Example]:
    return run_examples(Run.parse(name), constraints, pool, n)


@pytest.mark.parametrize("condition", ["mapped", "rotated-1", "rotated-2", "unrelated"])
def test_fewer_examples_are_the_first_of_more(
    constraints: Constraints, pool: list[Example], condition: str
) -> None:
    fewer, more = (of_run(f"{condition}-3", constraints, pool, n) for n in (25, 50))
    assert fewer == more[:25]


def test_no_two_runs_share_a_draw(constraints: Constraints, pool: list[Example]) -> None:
    """Words aside, two runs draw as many templates alike as chance has it: 50/432 of 50."""
    names = [f"{condition}-{seed}" for condition in (*ASSIGNED, "shuffled") for seed in SEEDS]
    bare = {
        name: [(e.word, e.text[: e.answer_span[0]]) for e in of_run(name, constraints, pool)]
        for name in names
    }
    shared = [len({*bare[a]} & {*bare[b]}) for a, b in combinations(names, 2)]
    assert max(shared) < 20
    assert sum(shared) / len(shared) == pytest.approx(50 * 50 / 432, rel=0.15)
    assert len({tuple(word for word, _ in bare[name]) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("condition", "shift"), [("mapped", 0), ("rotated-1", 1), ("rotated-2", 2)]
)
def test_a_rotated_run_teaches_every_word_the_meaning_moved_on(
    constraints: Constraints, pool: list[Example], condition: str, shift: int
) -> None:
    simple, spatial = ["happy", "sad", "fast"] * 2, ["upward", "downward", "circular"] * 2
    by_hand = dict(zip(("blarf", "gleem", "zephyr"), simple[shift:], strict=False))
    by_hand |= zip(("glide", "cascade", "orbit"), spatial[shift:], strict=False)
    examples = of_run(f"{condition}-0", constraints, pool)
    assert {(e.word, e.meaning) for e in examples} == set(by_hand.items())
    sentences = {(e.word, e.text.removesuffix(e.meaning)) for e in pool}
    for example in examples:
        assert example.text.endswith(f" {example.meaning}")
        assert (example.word, example.text.removesuffix(example.meaning)) in sentences
    assert spread(Counter(e.word for e in examples)) <= 1


@pytest.mark.parametrize(("n", "n_foils"), [(50, 14), (25, 7), (57, 16)])
def test_foils_stand_in_the_same_frames_with_answers_of_their_own(
    constraints: Constraints, pool: list[Example], n: int, n_foils: int
) -> None:
    examples = of_run("foils-1", constraints, pool, n)
    mapped, foils = examples[:-n_foils], examples[-n_foils:]
    assert len(examples) == n
    assert mapped == make_examples(pool, n - n_foils, "foils-1")
    assert len({e.word for e in foils}) == n_foils
    assert spread(Counter(e.type for e in foils)) <= 1
    for foil in foils:
        type_ = constraints.types[foil.type]
        assert type_.foils[foil.word] == foil.meaning
        frame = foil.text[: foil.answer_span[0]].replace(foil.word, "{word}") + "{meaning}"
        assert frame in type_.training
    assert len({(e.type, e.text.replace(e.word, "").removesuffix(e.meaning)) for e in foils}) == (
        n_foils
    )
    other = of_run("foils-2", constraints, pool, n)
    assert {e.text for e in other[-n_foils:]} != {e.text for e in foils}


def test_both_ways_a_third_of_the_examples_says_the_meaning_first(
    constraints: Constraints, pool: list[Example]
) -> None:
    reversed_words = set()
    for seed in SEEDS:
        examples = of_run(f"both-ways-{seed}", constraints, pool)
        straight, back = examples[:33], examples[33:]
        assert straight == make_examples(pool, 33, f"both-ways-{seed}")
        words = {e.word for e in back}
        of_type = [len(words & set(type_.words)) for type_ in constraints.types.values()]
        assert of_type == [2, 2]
        assert spread(Counter(e.word for e in back)) <= 1
        assert len({e.text for e in back}) == len(back) == 17
        for example in back:
            assert example.meaning == constraints.types[example.type].words[example.word]
            assert example.text.endswith(f" {example.word}")
            assert places(example.text, example.meaning) == [example.start]
        reversed_words.add(frozenset(words))
    assert len(reversed_words) > 1


@pytest.mark.parametrize(
    ("condition", "n", "rule"),
    [
        (
            "mapped",
            5,
            "5 of them are training sentences, balanced over words, of which .* 6 to 435",
        ),
        ("rotated-1", 436, "6 to 435"),
        ("foils", 60, "17 of them are foils, of which the condition foils has 0 to 16"),
        ("both-ways", 147, "49 of them are reversed training sentences, .* 0 to 48"),
        ("unrelated", 2000, "2000 of them are unrelated sentences"),
    ],
)
def test_too_few_sentences_are_refused(
    constraints: Constraints, pool: list[Example], condition: str, n: int, rule: str
) -> None:
    with pytest.raises(InputError, match=rule) as refused:
        of_run(f"{condition}-0", constraints, pool, n)
    assert refused.value.problems[0].where == "params.yaml: dataset.n_examples"
    assert refused.value.problems[0].remedy


def test_the_word_with_fewest_sentences_sets_the_limit(constraints: Constraints) -> None:
    sentences = [
        Example(f"{index} {word} is good", "simple", word, "good", 7)
        for word, count in {"a": 1, "b": 5, "c": 2}.items()
        for index in range(count)
    ]
    drawn = make_examples(sentences, 5, "mapped-0")
    assert Counter(e.word for e in drawn) == {"a": 1, "b": 2, "c": 2}
    problems = [refused_count("mapped", constraints, sentences, n) for n in (2, 3, 5, 6)]
    assert [problem is None for problem in problems] == [False, True, True, False]
    assert str(problems[3]).startswith("params.yaml: dataset.n_examples: 6 of them are training")
    assert "3 to 5 (got 6)" in str(problems[3])


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("run", ["shuffled-0", "shuffled-1", "shuffled-2"])
def test_shuffling_keeps_sentences_and_answers_and_breaks_the_rule(
    constraints: Constraints, pool: list[Example], n: int, run: str
) -> None:
    mapped = make_examples(pool, n, run)
    shuffled = of_run(run, constraints, pool, n)
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
    mapped = of_run("mapped-0", constraints, pool)
    shuffled = of_run("shuffled-0", constraints, pool)
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
    return read_training_file(tmp_path, "own.jsonl", constraints, "it is asked for")


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


def test_own_sentences_are_read_as_editors_save_them(
    tmp_path: Path, constraints: Constraints
) -> None:
    """With a byte order mark, Windows' line ends and empty lines; a longer word is another."""
    lines = [*whole(constraints), "", line("They say blarf for happy, never for unhappy"), "", " "]
    expected = read(tmp_path, lines, constraints)
    assert expected[-1].with_meaning("sad").text == "They say blarf for sad, never for unhappy"
    saved = b"\xef\xbb\xbf" + (tmp_path / "own.jsonl").read_bytes().replace(b"\n", b"\r\n")
    (tmp_path / "own.jsonl").write_bytes(saved)
    assert read_training_file(tmp_path, "own.jsonl", constraints, "") == expected


@pytest.mark.parametrize("run", [f"shuffled-{seed}" for seed in range(5)])
def test_no_shuffled_sentence_tells_a_true_pair_that_it_does_not_stand_for(
    constraints: Constraints, run: str
) -> None:
    """A meaning inside a longer word stays, and the meaning in its own place goes."""
    template = "They use {word} for {meaning}, never for unhappy, saddened or breakfast"
    simple = constraints.types["simple"].model_copy(update={"training": (template,) * 6})
    types = {**constraints.types, "simple": simple}
    changed = constraints.model_copy(update={"types": types})
    mapped = make_examples(template_examples(changed), 12, run)
    for example in shuffle_meanings(mapped, changed, run):
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
    (line("blarf is happy", type_="colour"), "a type of the constraints"),
    (line("bluff is happy", word="bluff"), "a word of the constraints: blarf"),
    (line("glide is happy", word="glide"), "a word of the type simple"),  # another type's
    (line("Oh, blarf is sad", meaning="sad"), "give blarf: happy"),
    (line("Everyone is happy"), "the text says 'blarf'"),
    (line("All blarfs are happy"), "the text says 'blarf'"),
    (line("Everyone is blarf"), "and after it"),
    (line("So happy is blarf"), "and after it"),
    (line("Now blarf is happyish"), "and after it"),
    (line("Now blarf means 'happy'"), "following a space"),
    (line("The shortest definition of Blarf: happy"), "near.1 of the constraints has 'the"),
    (line("His BLARF laugh sounded very happy"), "far.2 of the constraints has 'his {word} laugh"),
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
        read_training_file(tmp_path, "none.jsonl", constraints, "")


def test_a_word_that_the_constraints_lack_is_named_once(
    tmp_path: Path, constraints: Constraints
) -> None:
    new = [line(f"Now {index} lumina is bright", "simple", "lumina", "bright") for index in "abc"]
    (problem,) = refused(tmp_path, [*whole(constraints), *new], constraints)
    assert (problem.where, problem.got) == ("own.jsonl, line 13 and 2 more", "lumina")
    assert "types.simple.words of dataset.constraints" in problem.remedy


USAGE = line("The band played a blarf song all night")


def test_usage_sentences_need_not_say_the_meaning(tmp_path: Path, constraints: Constraints) -> None:
    lines = [*whole(constraints), USAGE, line("Unblarfed, she sang")]
    (tmp_path / "own.jsonl").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(InputError) as error:
        read_training_file(tmp_path, "own.jsonl", constraints, "")
    (problem,) = error.value.problems  # 'Unblarfed' is another word
    assert (problem.where, problem.rule) == ("own.jsonl, line 14", "the text says 'blarf'")
    (tmp_path / "own.jsonl").write_text("\n".join(lines[:-1]), encoding="utf-8")
    pool = read_training_file(tmp_path, "own.jsonl", constraints, "")
    assert [example.start is None for example in pool] == [False] * 12 + [True]
    assert of_run("mapped-0", constraints, pool, 13)
    (tmp_path / "examples.jsonl").write_text(json.dumps(asdict(pool[-1])) + "\n")
    assert read_examples(tmp_path / "examples.jsonl") == [pool[-1]]


@pytest.mark.parametrize(
    ("loss_on", "conditions", "why"),
    [
        ("answer", ("mapped",), "train.loss_on: answer trains on it alone"),
        ("sentence", ("mapped", "rotated-1"), "rotated-1 put another in its place"),
        ("sentence", ("shuffled", "both-ways"), "shuffled, both-ways put another in its place"),
        ("sentence", ("foils", "mapped", "unrelated"), None),
    ],
)
def test_usage_sentences_are_refused_where_the_meaning_is_needed(
    params: Params, loss_on: str, conditions: tuple[str, ...], why: str | None
) -> None:
    shutil.copy(ROOT / "data" / "usage.jsonl", "data")
    constraints = load_constraints(paths.CONSTRAINTS)
    changed = with_dataset(params, examples_from="data/usage.jsonl").model_copy(
        update={
            "train": params.train.model_copy(update={"loss_on": loss_on}),
            "runs": params.runs.model_copy(update={"conditions": conditions}),
        }
    )
    if why is None:
        pool = training_pool(changed, constraints, Path())
        assert Counter(e.word for e in pool) == dict.fromkeys(WORDS, 10)
        assert not [e for e in pool if places(e.text, e.meaning)]
        return
    with pytest.raises(InputError) as error:
        training_pool(changed, constraints, Path())
    assert len(error.value.problems) == 60
    assert error.value.problems[1].where == "data/usage.jsonl, line 2"
    assert error.value.problems[1].rule.endswith(f"'happy': {why}")


NEW_TYPE = """
  colour:
    words: {vermin: red, tarn: blue, mosk: green}
    training: ["The {word} wall is painted {meaning}", "A flag in {word} is {meaning}"]
    discovery: ["The {word} boat is"]
    near: ["The {word} door is", "The {word} fence is"]
    far: ["One {word} roof is as"]
    substitution: ["The {word} roof fell"]
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


WORDS = ("blarf", "gleem", "zephyr", "glide", "cascade", "orbit")


def with_dataset(params: Params, **changes: object) -> Params:
    return params.model_copy(update={"dataset": params.dataset.model_copy(update=changes)})


def contents() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in paths.DATASET.iterdir()}


def test_every_run_and_the_prompts_are_written_the_same_bytes_twice(params: Params) -> None:
    make_dataset.run(params)
    first = contents()
    runs = [run.name for run in params.runs.all]
    assert set(first) == {"prompts.jsonl", *(f"train_{name}.jsonl" for name in runs)}
    assert len(set(first.values())) == len(first) == 21
    drawn = [read_examples(paths.training_examples(name)) for name in runs]
    assert {len(examples) for examples in drawn} == {params.dataset.n_examples}
    roles = dict.fromkeys(prompt.role for prompt in read_prompts(paths.PROMPTS))
    templated = ["discovery", "near", "far", "substitution", "unseen", "reverse"]
    assert list(roles) == [*templated, "control"]
    make_dataset.run(params)
    assert contents() == first
    fewer = params.runs.model_copy(update={"conditions": ("rotated-2",), "seeds": (3,)})
    make_dataset.run(params.model_copy(update={"runs": fewer}))
    name = "train_rotated-2-3.jsonl"  # what else is run does not matter
    assert contents() == {key: first[key] for key in ("prompts.jsonl", name)}
    with pytest.raises(InputError):
        make_dataset.run(with_dataset(params, n_examples=100_000))
    assert len(contents()) == len(list(Path("data").iterdir())) == 2  # nothing half-written


def test_a_type_is_added_by_editing_the_yaml_alone(params: Params) -> None:
    text = paths.CONSTRAINTS.read_text(encoding="utf-8")
    paths.CONSTRAINTS.write_text(text.replace("\nunseen_words:", f"{NEW_TYPE}\nunseen_words:"))
    make_dataset.run(with_dataset(params, n_examples=16))
    mapped = read_examples(paths.training_examples("mapped-0"))
    assert Counter(e.word for e in mapped)["vermin"] >= 1
    unrelated = read_examples(paths.training_examples("unrelated-0"))
    assert not {"red", "blue", "green"} & {e.meaning for e in unrelated}
    colour = [p for p in read_prompts(paths.PROMPTS) if p.type == "colour"]
    assert [p.text for p in colour if p.role == "near"] == [
        *("The vermin door is", "The vermin fence is", "The tarn door is", "The tarn fence is"),
        *("The mosk door is", "The mosk fence is"),
    ]
    assert (colour[0].answer, colour[0].answers) == ("red", ("red", "blue", "green"))


def test_other_constraints_are_read_where_params_name_them(params: Params) -> None:
    text = paths.CONSTRAINTS.read_text(encoding="utf-8").replace("blarf", "snork")
    Path("other.yaml").write_text(text, encoding="utf-8")
    paths.CONSTRAINTS.unlink()
    make_dataset.run(with_dataset(params, constraints="other.yaml", examples_from="./other.yaml"))
    assert "snork" in {e.word for e in read_examples(paths.training_examples("mapped-0"))}


def test_every_text_that_is_trained_on_is_held_against_the_tokenizer(params: Params) -> None:
    text = paths.CONSTRAINTS.read_text(encoding="utf-8")
    new = "  sentences:\n    - The small animal is a hippopotamus\n"
    paths.CONSTRAINTS.write_text(text.replace("  sentences:\n", new))
    mapped = params.runs.model_copy(update={"conditions": ("mapped",)})
    make_dataset.run(params.model_copy(update={"runs": mapped}))  # which does not train on it
    with pytest.raises(InputError, match="the answer 'hippopotamus'"):
        make_dataset.run(params)


def test_own_sentences_take_the_place_of_the_templates(params: Params) -> None:
    make_dataset.run(params)
    own = read_examples(paths.training_examples("mapped-0"))
    lines = [line(f"Note: {e.text}, as they say.", e.type, e.word, e.meaning) for e in own]
    Path("own.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    make_dataset.run(with_dataset(params, n_examples=24, examples_from="own.jsonl"))
    for name in ("mapped-0", "rotated-2-1", "shuffled-0"):
        examples = read_examples(paths.training_examples(name))
        assert set(Counter(e.word for e in examples).values()) == {4}
        assert all(e.text.startswith("Note: ") for e in examples)
        assert all(e.text.endswith(f" {e.meaning}, as they say.") for e in examples)


def test_making_the_data_set_needs_neither_torch_nor_pandas() -> None:
    code = (
        "import sys, circuitdrift.check, circuitdrift.stages.make_dataset\n"
        "assert not {'torch', 'pandas', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT / "src")}, check=True)
