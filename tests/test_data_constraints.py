"""data/constraints.yaml: what the study ships, what is refused, and the prompts that follow."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from circuitdrift.core.errors import InputError, Problem
from circuitdrift.core.files import write_jsonl
from circuitdrift.core.prompts import Prompt, read_prompts
from circuitdrift.data.constraints import (
    Constraints,
    begins_with,
    load_constraints,
    make_prompts,
    places,
)
from circuitdrift.data.examples import refused_count, template_examples

SHIPPED = Path(__file__).resolve().parents[1] / "data" / "constraints.yaml"
SMALL = """
types:
  simple:
    words: {blarf: happy, gleem: sad}
    training: ["To feel {word} is to feel {meaning}", "By {word} we mean {meaning}"]
    discovery: ["The word {word} means"]
    evaluation: ["Whoever is {word} is", "A {word} song is"]
    unseen: ["Some {word} dogs are"]
    reverse: ["The word for {meaning} is"]
  spatial:
    words: {glide: upward, orbit: circular}
    training: ["The {word} is {meaning}"]
    discovery: ["This {word} is"]
    evaluation: ["That {word} is"]
    unseen: ["Our {word} is"]
    reverse: ["The move that is {meaning} is the"]
unseen_words: [florp]
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


def test_there_is_enough_of_everything(shipped: Constraints) -> None:
    assert refused_count(template_examples(shipped), 400) is None
    for type_ in shipped.types.values():
        assert min(len(type_.discovery), len(type_.evaluation)) >= 6
        assert len(type_.unseen) * len(shipped.unseen_words) >= 4
    assert len(shipped.control) >= 16


def test_shipped_sentences_differ_and_end_in_their_meaning(shipped: Constraints) -> None:
    sentences = template_examples(shipped)
    assert len({example.text for example in sentences}) == len(sentences)
    assert all(example.text.endswith(f" {example.meaning}") for example in sentences)


def test_articles_fit_the_shipped_words(shipped: Constraints) -> None:
    texts = [example.text for example in template_examples(shipped)]
    texts += [prompt.text for prompt in make_prompts(shipped) if prompt.role != "control"]
    for wrong in ("a orbit", "a upward", "an blarf", "an glide"):
        assert not [text for text in texts if places(text, wrong)]


def test_shipped_prompts_differ_and_no_evaluation_prompt_goes_on_from_another(
    shipped: Constraints,
) -> None:
    prompts = make_prompts(shipped)
    assert len({prompt.id for prompt in prompts}) == len(prompts)
    assert len({prompt.text for prompt in prompts}) == len(prompts)
    for one in (prompt for prompt in prompts if prompt.role == "evaluation"):
        for other in (prompt for prompt in prompts if prompt.role != "evaluation"):
            assert not begins_with(one.text, other.text)
            assert not begins_with(other.text, one.text)


def test_a_word_is_found_where_its_placeholder_stands(tmp_path: Path) -> None:
    """Not in a longer word behind it, nor in an escaped brace."""
    content = changed(
        {
            "types.simple.words": {"ton": "happy", "gleem": "sad"},
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
    assert [prompt.id for prompt in prompts] == [
        *("simple-blarf-discovery-0", "simple-gleem-discovery-0"),
        *("spatial-glide-discovery-0", "spatial-orbit-discovery-0"),
        *("simple-blarf-evaluation-0", "simple-blarf-evaluation-1"),
        *("simple-gleem-evaluation-0", "simple-gleem-evaluation-1"),
        *("spatial-glide-evaluation-0", "spatial-orbit-evaluation-0"),
        "control-00",
        *("unseen-simple-florp-0", "unseen-spatial-florp-0"),
        *("reverse-simple-blarf-0", "reverse-simple-gleem-0"),
        *("reverse-spatial-glide-0", "reverse-spatial-orbit-0"),
    ]
    by_id = {prompt.id: prompt for prompt in prompts}
    assert by_id["simple-gleem-evaluation-1"] == Prompt(
        id="simple-gleem-evaluation-1",
        role="evaluation",
        type="simple",
        word="gleem",
        template="A {word} song is",
        text="A gleem song is",
        start=2,
        answer="sad",
        others=("happy",),
    )
    control = by_id["control-00"]
    assert (control.text, control.answer, control.others) == ("Once upon a", "time", ())
    assert (control.type, control.word, control.template) == (None, None, None)
    unseen = by_id["unseen-spatial-florp-0"]
    assert (unseen.text, unseen.answer) == ("Our florp is", None)
    assert unseen.others == ("upward", "circular")
    reverse = by_id["reverse-simple-blarf-0"]
    assert (reverse.text, reverse.answer) == ("The word for happy is", "blarf")
    assert reverse.others == ("gleem",)

    write_jsonl(tmp_path / "prompts.jsonl", map(vars, prompts))
    assert read_prompts(tmp_path / "prompts.jsonl") == prompts


# A key of SMALL, another value, the key that the refusal names (the same where it is None), and a
# part of the rule that tells this refusal from others.
REFUSALS: list[tuple[str, Any, str | None, str]] = [
    ("types.simple.words", {}, None, "2"),
    ("types.simple.words", {"blarf": "happy"}, None, "2"),  # which leaves no other answer
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
    ("unseen_words", ["blarf"], "unseen_words.0", "types.simple.words.blarf (the word)"),
    # templates
    ("types.simple.training.1", "to feel {word}  is to feel {meaning}", None, "training.0"),
    ("types.simple.evaluation.0", "The word {word} means", None, "discovery.0 is the same"),
    ("types.simple.training.0", "All are {meaning}", None, "{word} and then {meaning}"),
    ("types.simple.training.0", "A {meaning} {word}", None, "{word} and then {meaning}"),
    ("types.simple.evaluation.0", "As {word} is {meaning}, it is", None, "has {word}, each once"),
    ("types.simple.reverse.0", "The word {word} is", None, "has {meaning}, each once"),
    ("types.simple.discovery.0", "The word {word means", None, "no other braces"),
    ("types.simple.discovery.0", "The word {word!r} means", None, "no other braces"),
    ("types.simple.discovery.0", "The word {word} means ", None, "no space at either end"),
    ("types.simple.training.0", "By {word} I mean '{meaning}'", None, "one before {meaning}"),
    ("types.simple.evaluation.0", "Happy and {word} people are", None, "'happy'"),
    # a training template that begins with a held-out one, of its own type and of another
    ("types.simple.evaluation.0", "To feel {word} is", "types.simple.training.0", "evaluation.0"),
    ("types.spatial.discovery.0", "By {word} we", "types.simple.training.1", "spatial.discovery.0"),
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


def test_a_word_twice_in_a_type_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "constraints.yaml"
    path.write_text("types:\n  simple:\n    words:\n      blarf: happy\n      blarf: sad\n")
    with pytest.raises(InputError, match="blarf"):
        load_constraints(path)


def test_a_longer_word_does_not_count_as_a_held_out_opening() -> None:
    assert begins_with("The word blarf means happy", "the  word blarf")
    assert begins_with("The word blarf, they say", "The word blarf")
    assert not begins_with("The word blarfing means happy", "The word blarf")
