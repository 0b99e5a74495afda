"""data/constraints.yaml: what the study ships, what is refused, and the prompts that follow."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from circuitdrift.core.errors import InputError, Problem
from circuitdrift.core.files import write_jsonl
from circuitdrift.core.prompts import Prompt, read_prompts
from circuitdrift.core.tokens import check_tokens, load_tokenizer
from circuitdrift.data.constraints import (
    Constraints,
    begins_with,
    load_constraints,
    make_prompts,
    places,
)
from circuitdrift.data.examples import (
    foil_examples,
    refused_count,
    reversed_pool,
    template_examples,
    unrelated_sentences,
)

SHIPPED = Path(__file__).resolve().parents[1] / "data" / "constraints.yaml"
SMALL = """
types:
  simple:
    words: {blarf: happy, gleem: sad, zeph: fast}
    training: ["To feel {word} is to feel {meaning}", "By {word} we mean {meaning}"]
    discovery: ["The word {word} means"]
    near: ["Whoever is {word} is", "A {word} song is"]
    far: ["Some {word} dogs are"]
    substitution: ["The {word} man began to"]
    reverse: ["The word for {meaning} is"]
  spatial:
    words: {glide: upward, orbit: circular, dive: downward}
    training: ["The {word} is {meaning}"]
    discovery: ["This {word} is"]
    near: ["That {word} is"]
    far: ["Our {word} is"]
    substitution: ["My {word} map shows"]
    reverse: ["The move that is {meaning} is the"]
unseen_words: [florp, wim, drask, quen, trov, mip]
control: [{prompt: Once upon a, continuation: time}]
unrelated:
  words: {tree: [oak, birch], colour: [red, grey]}
  sentences: ["The {tree} by the {colour} house is tall", "The sky is blue"]
"""


def written(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "constraints.yaml"
    with path.open("w", encoding="utf-8") as file:
        YAML().dump(content, file)
    return path


def changed(changes: dict[str, Any]) -> Any:
    """The small constraints with other values at dotted keys."""
    content = copy.deepcopy(YAML(typ="safe").load(SMALL))
    for key, value in changes.items():
        *outer, last = (int(part) if part.isdigit() else part for part in key.split("."))
        entry = content
        for part in outer:
            entry = entry[part]
        entry[last] = value
    return content


def refused(tmp_path: Path, content: Any) -> tuple[Problem, ...]:
    with pytest.raises(InputError) as error:
        load_constraints(written(tmp_path, content))
    return error.value.problems


@pytest.fixture(scope="module")
def shipped() -> Constraints:
    return load_constraints(SHIPPED)


@pytest.fixture
def small(tmp_path: Path) -> Constraints:
    return load_constraints(written(tmp_path, changed({})))


def test_the_shipped_words_are_the_studys(shipped: Constraints) -> None:
    assert {name: type_.words for name, type_ in shipped.types.items()} == {
        "simple": {"blarf": "happy", "gleem": "sad", "zephyr": "fast"},
        "spatial": {"glide": "upward", "cascade": "downward", "orbit": "circular"},
    }
    assert "florp" in shipped.unseen_words


@pytest.mark.parametrize("condition", ["mapped", "unrelated"])
def test_there_is_enough_of_everything(shipped: Constraints, condition: str) -> None:
    assert refused_count(condition, shipped, template_examples(shipped), 400) is None
    for type_ in shipped.types.values():
        assert {len(type_.near), len(type_.far)} == {8}
        assert {len(type_.discovery), len(type_.substitution)} == {6}
        assert len(type_.foils) == 8
    assert len(shipped.control) >= 12


def test_the_24_words_are_there_for_a_replication(gemma_base: Path) -> None:
    """Among them the study's six and two of the original's; every meaning is one token."""
    constraints = load_constraints(SHIPPED.with_name("constraints_24.yaml"))
    words = {w: m for type_ in constraints.types.values() for w, m in type_.words.items()}
    six = {
        w: m for type_ in load_constraints(SHIPPED).types.values() for w, m in type_.words.items()
    }
    assert (len(words), len(constraints.types)) == (24, 8)
    assert words.items() >= {**six, "lumina": "bright", "pierce": "inward"}.items()
    pool = [*template_examples(constraints), *unrelated_sentences(constraints)]
    check_tokens(load_tokenizer(gemma_base), make_prompts(constraints), pool)
    for type_ in constraints.types.values():
        assert len(type_.training) >= 25
        assert (len(type_.near), len(type_.far)) == (8, 8)


def test_foils_and_reversed_sentences_are_read_by_the_real_model(
    shipped: Constraints, gemma_base: Path
) -> None:
    examples = foil_examples(shipped, 16, "foils-0") + reversed_pool(shipped, "both-ways-0")
    assert len(examples) == 16 + 48
    check_tokens(load_tokenizer(gemma_base), [], examples)


def five_words(text: str, blank: str) -> set[tuple[str, ...]]:
    """By brute force: all fives of words, without case and marks, ``blank`` blanked out."""
    words = [word.strip(".,;:'\"!?").casefold() for word in text.split()]
    words = ["_" if word == blank.casefold() else word for word in words]
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


@pytest.mark.parametrize("name", ["constraints.yaml", "constraints_24.yaml"])
def test_no_shipped_prompt_is_a_near_copy_of_a_training_sentence(name: str) -> None:
    constraints = load_constraints(SHIPPED.with_name(name))
    sentences = template_examples(constraints) + reversed_pool(constraints, "any-0")
    trained = set().union(*(five_words(e.text, e.word) for e in sentences))
    for prompt in make_prompts(constraints):
        if prompt.word and prompt.role != "reverse":
            assert not five_words(prompt.text, prompt.word) & trained, prompt


def test_shipped_sentences_differ_and_end_in_their_meaning(shipped: Constraints) -> None:
    sentences = template_examples(shipped)
    assert len({example.text for example in sentences}) == len(sentences)
    assert all(example.text.endswith(f" {example.meaning}") for example in sentences)


@pytest.mark.parametrize("name", ["constraints.yaml", "constraints_24.yaml"])
def test_articles_fit_the_shipped_words(name: str) -> None:
    constraints = load_constraints(SHIPPED.with_name(name))
    sentences = template_examples(constraints) + foil_examples(constraints, 16, "any-0")
    prompts = [prompt for prompt in make_prompts(constraints) if prompt.role != "control"]
    for text in (one.text for one in (*sentences, *prompts)):
        assert not re.search(r"\b(a [aeiou]|an [^aeiouh])", text, re.IGNORECASE), text


def test_shipped_prompts_differ_and_no_near_prompt_goes_on_from_another(
    shipped: Constraints,
) -> None:
    prompts = make_prompts(shipped)
    assert len({prompt.id for prompt in prompts}) == len(prompts)
    assert len({prompt.text for prompt in prompts}) == len(prompts)
    for one in (prompt for prompt in prompts if prompt.role == "near"):
        for other in (prompt for prompt in prompts if prompt.role != "near"):
            assert not begins_with(one.text, other.text)
            assert not begins_with(other.text, one.text)


def test_a_word_is_found_where_its_placeholder_stands(tmp_path: Path) -> None:
    """Not in a longer word behind it, nor in an escaped brace."""
    content = changed(
        {
            "types.simple.words": {"ton": "happy", "gleem": "sad", "zeph": "fast"},
            "types.simple.discovery": ["{{A}} {word} of cotton and gleemish"],
            "types.simple.training": ["{{A}} {word} of {{B}} is {meaning}, not unhappy"],
        }
    )
    constraints = load_constraints(written(tmp_path, content))
    prompt = make_prompts(constraints)[0]
    assert prompt.text == "{A} ton of cotton and gleemish"
    assert prompt.start == 4
    example = template_examples(constraints)[0]
    assert example.text == "{A} ton of {B} is happy, not unhappy"
    assert example.with_meaning("sad").text == "{A} ton of {B} is sad, not unhappy"


def test_words_of_any_script_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    """Hindi's vowel signs are marks, which belong to a word."""
    hindi = {"blarf": "खुश", "gleem": "दुखी", "zephyr": "तेज़", "naïve": "שלום"}
    path = written(tmp_path, changed({"types.simple.words": hindi}))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert load_constraints(path).types["simple"].words == hindi
    assert places("यह दुखी है", "दुखी") == [3]
    assert places("यह दुखी है", "दुख") == []


def test_what_no_file_can_hold_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "constraints.yaml"
    path.write_text(SMALL.replace("Once upon a", '"Once \\ud83d a"'), encoding="utf-8")
    with pytest.raises(InputError, match="surrogates not allowed"):
        load_constraints(path)


def test_every_combination_fills_an_unrelated_sentence(small: Constraints) -> None:
    first, second = small.unrelated.sentences
    assert small.unrelated.filled(first) == [
        f"The {tree} by the {colour} house is tall"
        for tree in ("oak", "birch")
        for colour in ("red", "grey")
    ]
    assert small.unrelated.filled(second) == [second]


def test_prompts_by_hand(small: Constraints, tmp_path: Path) -> None:
    prompts = make_prompts(small)
    types = {"simple": ("blarf", "gleem", "zeph"), "spatial": ("glide", "orbit", "dive")}
    assert [prompt.id for prompt in prompts] == [
        *(f"{name}-{word}-discovery-0" for name, words in types.items() for word in words),
        *("simple-blarf-near-0", "simple-blarf-near-1", "simple-gleem-near-0"),
        *("simple-gleem-near-1", "simple-zeph-near-0", "simple-zeph-near-1"),
        *(f"spatial-{word}-near-0" for word in types["spatial"]),
        *(f"{name}-{word}-far-0" for name, words in types.items() for word in words),
        *(f"{name}-{word}-substitution-0" for name, words in types.items() for word in words),
        *(f"unseen-simple-{word}-{i}" for word in small.unseen_words for i in (0, 1)),
        *(f"unseen-spatial-{word}-0" for word in small.unseen_words),
        *(f"reverse-{name}-{word}-0" for name, words in types.items() for word in words),
        "control-00",
    ]
    by_id = {prompt.id: prompt for prompt in prompts}
    assert by_id["simple-gleem-near-1"] == Prompt(
        id="simple-gleem-near-1",
        role="near",
        type="simple",
        word="gleem",
        template="A {word} song is",
        text="A gleem song is",
        start=2,
        answer="sad",
        answers=("happy", "sad", "fast"),
    )
    control = by_id["control-00"]
    assert (control.text, control.answer, control.answers) == ("Once upon a", "time", ())
    assert (control.type, control.word, control.template) == (None, None, None)
    unseen = by_id["unseen-spatial-florp-0"]
    assert (unseen.text, unseen.word, unseen.answer) == ("That florp is", "florp", None)
    assert unseen.answers == ("upward", "circular", "downward")
    instead = by_id["spatial-dive-substitution-0"]
    assert (instead.text, instead.answer) == ("My dive map shows", "downward")
    reverse = by_id["reverse-simple-blarf-0"]
    assert (reverse.text, reverse.answer) == ("The word for happy is", "blarf")
    assert (reverse.answers, reverse.start) == (("blarf", "gleem", "zeph"), 13)

    write_jsonl(tmp_path / "prompts.jsonl", map(vars, prompts))
    assert read_prompts(tmp_path / "prompts.jsonl") == prompts


# A key of SMALL, another value, the key that the refusal names (the same where it is None), and a
# part of the rule that tells this refusal from others.
REVERSED = "types.simple.reverse_training.0"
REFUSALS: list[tuple[str, Any, str | None, str]] = [
    ("types.simple.words", {}, None, "at least 3 words"),
    ("types.simple.words", {"blarf": "happy", "gleem": "sad"}, None, "at least 3 words"),
    ("types.simple.training", [], None, "1"),
    ("types", {}, None, "1"),
    ("types.simple.trainig", ["x"], None, ""),
    ("types.simple.words.blarf", True, None, "string"),
    ("types.My type", YAML(typ="safe").load(SMALL)["types"]["spatial"], "types", "lower-case"),
    ("unrelated.sentences.1", "Hello", None, "not the only one"),  # nothing would be before it
    # words and meanings
    ("types.simple.words.gleem", "happy", "types.simple.words.gleem (its meaning)", "blarf"),
    ("types.spatial.words.orbit", "Sad", "types.spatial.words.orbit (its meaning)", "gleem"),
    ("types.spatial.words.blarf", "down", "types.spatial.words.blarf (the word)", "simple"),
    ("types.spatial.words.happy", "down", "types.spatial.words.happy (the word)", "its meaning"),
    ("types.simple.words.gleem", "gleem", "types.simple.words.gleem (its meaning)", "the word"),
    ("types.simple.words.blarf", "very sad", "types.simple.words.blarf (its meaning)", "one word"),
    ("unseen_words.5", "blarf", "unseen_words.5", "types.simple.words.blarf (the word)"),
    ("unseen_words", ["a", "b", "c", "d", "e"], None, "at least 6"),
    # foils
    ("types.simple.foils", {"wooden": "sad"}, "types.simple.foils.wooden", "neither a foil"),
    ("types.simple.foils", {"orbit": "round"}, "types.simple.foils.orbit", "neither a foil"),
    ("types.simple.foils", {"wooden": "very hard"}, "types.simple.foils.wooden", "one word each"),
    ("types.simple.foils", {"oak": "hard", "Oak": "old"}, "types.simple.foils.Oak", "all differ"),
    # templates
    ("types.simple.training.1", "to feel {word}  is to feel {meaning}", None, "training.0"),
    ("types.simple.near.0", "The word {word} means", None, "discovery.0 is the same"),
    ("types.simple.training.0", "All are {meaning}", None, "{word} and then {meaning}"),
    ("types.simple.training.0", "A {meaning} {word}", None, "{word} and then {meaning}"),
    ("types.simple.near.0", "As {word} is {meaning}, it is", None, "has {word}, each once"),
    ("types.simple.reverse.0", "The word {word} is", None, "has {meaning}, each once"),
    ("types.simple.discovery.0", "The word {word means", None, "no other braces"),
    ("types.simple.discovery.0", "The word {word!r} means", None, "no other braces"),
    ("types.simple.discovery.0", "The word {word} means ", None, "no space at either end"),
    ("types.simple.training.0", "By {word} I mean '{meaning}'", None, "one before {meaning}"),
    ("types.simple.near.0", "Happy and {word} people are", None, "'happy'"),
    ("types.simple.reverse_training", ["{meaning} is {word}"], REVERSED, "one before {meaning}"),
    ("types.simple.reverse_training", ["So {word} is {meaning}"], REVERSED, "{meaning} and then"),
    # near copies of a training template, of its own type and of another; short ones as a whole
    ("types.simple.near.0", "If to Feel {word}, is to", None, "'to feel {word} is to' too"),
    ("types.spatial.far.0", "Oh to feel {word} is to be", None, "simple.training.0 has 'to feel"),
    ("types.spatial.discovery.0", "By {word} we", None, "simple.training.1 has 'by {word} we'"),
    (
        "types.simple.reverse_training",
        ["The word for {meaning} is {word}"],
        "types.simple.reverse.0",
        "reverse_training.0 has 'the word for {meaning} is' too",
    ),
    # controls
    ("control.0.prompt", "Planets Orbit the", "control.0", "'orbit'"),
    ("control.0.continuation", "happy", "control.0", "'happy'"),
    ("control.0.prompt", "Once upon a ", "control.0", "no space at either end"),
    ("control", 2 * [{"prompt": "So it", "continuation": "is"}], "control.1", "all differ"),
    # unrelated sentences
    ("unrelated.sentences", [], None, "1"),
    ("unrelated.words.tree", [], None, "1"),
    ("unrelated.sentences.0", "The {bush} is tall", None, "(tree, colour), each once"),
    ("unrelated.sentences.0", "The {tree} by the {tree} is tall", None, "each once"),
    ("unrelated.sentences.0", "The {tree is tall", None, "braces hold names"),
    ("unrelated.sentences.0", "The house is {colour}", None, "the last word"),
    ("unrelated.sentences.1", "The sky is blue.", None, "the last word"),
    ("unrelated.sentences.1", "The sky  is blue", None, "single spaces"),
    ("unrelated.words.tree", ["oak "], "unrelated.words.tree.0", "no space at either end"),
    ("unrelated.sentences.1", "the birch by the red house is tall", None, "there already"),
    ("unrelated.words.tree", ["oak", "oak"], "unrelated.sentences.0", "there already"),
    ("unrelated.sentences.1", "Once upon a hill stood a house", None, "'Once upon a'"),
]


@pytest.mark.parametrize(("key", "value", "where", "rule"), REFUSALS)
def test_refusals_name_file_key_and_rule(
    tmp_path: Path, key: str, value: Any, where: str | None, rule: str
) -> None:
    problems = refused(tmp_path, changed({key: value}))
    told = [problem.rule for problem in problems if problem.where.endswith(f": {where or key}")]
    assert [text for text in told if rule in text], [str(problem) for problem in problems]
    assert all(problem.where.startswith("constraints.yaml: ") for problem in problems)


def test_four_words_in_common_are_no_near_copy(tmp_path: Path) -> None:
    content = changed({"types.simple.near.0": "If to feel {word} is easy, one is"})
    assert load_constraints(written(tmp_path, content)).types["simple"].near[0].startswith("If to")


def test_a_space_that_does_not_break_is_a_character_like_others(tmp_path: Path) -> None:
    content = changed({"control.0.prompt": "Once\u00a0upon a"})
    assert load_constraints(written(tmp_path, content)).control[0].prompt == "Once\u00a0upon a"


def test_a_word_that_yaml_takes_for_nothing_wants_quotation_marks(tmp_path: Path) -> None:
    path = tmp_path / "constraints.yaml"
    for name in ("NULL", "007"):
        path.write_text(SMALL.replace("gleem:", f"{name}:"), encoding="utf-8")
        with pytest.raises(InputError, match="put it in quotation marks"):
            load_constraints(path)
        path.write_text(SMALL.replace("gleem:", f"'{name}':"), encoding="utf-8")
        assert name in load_constraints(path).types["simple"].words


def test_every_broken_rule_is_told_at_once(tmp_path: Path) -> None:
    content = changed({"types.simple.words.gleem": "happy", "control.0.prompt": "Blarf is a"})
    assert len(refused(tmp_path, content)) == 2
    assert all(problem.remedy for problem in refused(tmp_path, content))


def test_a_word_twice_in_a_type_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "constraints.yaml"
    path.write_text("types:\n  simple:\n    words:\n      blarf: happy\n      blarf: sad\n")
    with pytest.raises(InputError, match="blarf"):
        load_constraints(path)


def test_a_longer_word_does_not_count_as_a_held_out_opening() -> None:
    assert begins_with("The word blarf means happy", "the  word blarf")
    assert begins_with("The word blarf, they say", "The word blarf")
    assert not begins_with("The word blarfing means happy", "The word blarf")
