"""data/constraints.yaml: what the study ships, what is refused, and the prompts that follow."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from circuitdrift.artifacts import write_jsonl
from circuitdrift.constraint_rules import begins_with, says
from circuitdrift.constraints import Constraints, load_constraints, make_prompts
from circuitdrift.dataset import Prompt, read_prompts
from circuitdrift.errors import InputError, Problem
from circuitdrift.examples import refused_count, template_examples

SHIPPED = Path(__file__).resolve().parents[1] / "data" / "constraints.yaml"

SMALL: dict[str, Any] = {
    "types": {
        "simple": {
            "words": {"blarf": "happy", "gleem": "sad"},
            "training": ["To feel {word} is to feel {meaning}", "By {word} we mean {meaning}"],
            "discovery": ["The word {word} means"],
            "evaluation": ["Whoever is {word} is", "A {word} song is"],
            "unseen": ["Some {word} dogs are"],
            "reverse": ["The word for {meaning} is"],
        },
        "spatial": {
            "words": {"glide": "upward", "orbit": "circular"},
            "training": ["The {word} is {meaning}"],
            "discovery": ["This {word} is"],
            "evaluation": ["That {word} is"],
            "unseen": ["Our {word} is"],
            "reverse": ["The move that is {meaning} is the"],
        },
    },
    "unseen_words": ["florp"],
    "control": [{"prompt": "Once upon a", "continuation": "time"}],
    "unrelated": {
        "words": {"tree": ["oak", "birch"], "colour": ["red", "grey"]},
        "sentences": ["The {tree} by the {colour} house is tall", "The sky is blue"],
    },
}


def written(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "constraints.yaml"
    with path.open("w", encoding="utf-8") as file:
        YAML().dump(content, file)
    return path


def refused(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> tuple[Problem, ...]:
    content = copy.deepcopy(SMALL)
    change(content)
    with pytest.raises(InputError) as error:
        load_constraints(written(tmp_path, content))
    return error.value.problems


@pytest.fixture
def shipped() -> Constraints:
    return load_constraints(SHIPPED)


@pytest.fixture
def small(tmp_path: Path) -> Constraints:
    return load_constraints(written(tmp_path, SMALL))


def test_the_shipped_words_are_the_studys(shipped: Constraints) -> None:
    assert {name: type_.words for name, type_ in shipped.types.items()} == {
        "simple": {"blarf": "happy", "gleem": "sad", "zephyr": "fast"},
        "spatial": {"glide": "upward", "cascade": "downward", "orbit": "circular"},
    }
    assert "florp" in shipped.unseen_words


def test_there_is_enough_of_everything(shipped: Constraints) -> None:
    pool = template_examples(shipped)
    assert len({example.text for example in pool}) == len(pool)
    assert refused_count(pool, 400) is None
    for type_ in shipped.types.values():
        assert len(type_.discovery) >= 6
        assert len(type_.evaluation) >= 6
        assert len(type_.unseen) * len(shipped.unseen_words) >= 4
    assert len(shipped.control) >= 16


def test_every_shipped_sentence_ends_in_its_meaning(shipped: Constraints) -> None:
    assert all(
        example.text.endswith(f" {example.meaning}") for example in template_examples(shipped)
    )


def test_no_shipped_training_sentence_begins_with_a_held_out_prompt(shipped: Constraints) -> None:
    prompts = [prompt.text for prompt in make_prompts(shipped) if prompt.role != "control"]
    sentences = [example.text for example in template_examples(shipped)]
    assert not [s for s in sentences for prompt in prompts if begins_with(s, prompt)]


def test_articles_fit_the_shipped_words(shipped: Constraints) -> None:
    texts = [example.text for example in template_examples(shipped)]
    texts += [prompt.text for prompt in make_prompts(shipped) if prompt.role != "control"]
    wrong = [
        t for t in texts for w in ("a orbit", "a upward", "an blarf", "an glide") if says(t, w)
    ]
    assert wrong == []


def test_no_shipped_evaluation_prompt_is_another_prompt(shipped: Constraints) -> None:
    """Not even one that goes on."""
    prompts = make_prompts(shipped)
    evaluation = [prompt for prompt in prompts if prompt.role == "evaluation"]
    others = [prompt for prompt in prompts if prompt.role != "evaluation"]
    for one in evaluation:
        for other in others:
            assert not begins_with(one.text, other.text)
            assert not begins_with(other.text, one.text)


def test_every_combination_fills_an_unrelated_sentence(small: Constraints) -> None:
    first, second = small.unrelated.sentences
    assert small.unrelated.filled(first) == [
        "The oak by the red house is tall",
        "The oak by the grey house is tall",
        "The birch by the red house is tall",
        "The birch by the grey house is tall",
    ]
    assert small.unrelated.filled(second) == ["The sky is blue"]


def test_prompts_by_hand(small: Constraints) -> None:
    prompts = make_prompts(small)
    assert [prompt.id for prompt in prompts] == [
        "simple-blarf-discovery-0",
        "simple-gleem-discovery-0",
        "spatial-glide-discovery-0",
        "spatial-orbit-discovery-0",
        "simple-blarf-evaluation-0",
        "simple-blarf-evaluation-1",
        "simple-gleem-evaluation-0",
        "simple-gleem-evaluation-1",
        "spatial-glide-evaluation-0",
        "spatial-orbit-evaluation-0",
        "control-00",
        "unseen-simple-florp-0",
        "unseen-spatial-florp-0",
        "reverse-simple-blarf-0",
        "reverse-simple-gleem-0",
        "reverse-spatial-glide-0",
        "reverse-spatial-orbit-0",
    ]
    by_id = {prompt.id: prompt for prompt in prompts}
    assert by_id["simple-gleem-evaluation-1"] == Prompt(
        id="simple-gleem-evaluation-1",
        role="evaluation",
        type="simple",
        word="gleem",
        template="A {word} song is",
        text="A gleem song is",
        answer="sad",
        others=("happy",),
    )
    assert by_id["control-00"] == Prompt(
        id="control-00",
        role="control",
        type=None,
        word=None,
        template=None,
        text="Once upon a",
        answer="time",
        others=(),
    )
    unseen = by_id["unseen-spatial-florp-0"]
    assert (unseen.text, unseen.answer, unseen.others) == (
        "Our florp is",
        None,
        ("upward", "circular"),
    )
    reverse = by_id["reverse-simple-blarf-0"]
    assert (reverse.text, reverse.answer, reverse.others) == (
        "The word for happy is",
        "blarf",
        ("gleem",),
    )


def test_prompts_read_back_as_they_were(small: Constraints, tmp_path: Path) -> None:
    prompts = make_prompts(small)
    write_jsonl(tmp_path / "prompts.jsonl", map(vars, prompts))
    assert read_prompts(tmp_path / "prompts.jsonl") == prompts


def test_prompts_are_distinct(shipped: Constraints) -> None:
    prompts = make_prompts(shipped)
    assert len({prompt.id for prompt in prompts}) == len(prompts)
    assert len({prompt.text for prompt in prompts}) == len(prompts)


def set_in(*keys: str | int, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = to

    return change


SIMPLE = ("types", "simple")

REFUSALS = {
    "a type without words": (
        set_in(*SIMPLE, "words", to={}),
        "types.simple.words",
        "must have at least 2 entries",
    ),
    "a type with one word, which leaves no other answer": (
        set_in(*SIMPLE, "words", to={"blarf": "happy"}),
        "types.simple.words",
        "must have at least 2 entries",
    ),
    "a type without training templates": (
        set_in(*SIMPLE, "training", to=[]),
        "types.simple.training",
        "must have at least 1 entry",
    ),
    "no type at all": (set_in("types", to={}), "types", "must have at least 1 entry"),
    "an unknown key": (set_in(*SIMPLE, "trainig", to=["x"]), "types.simple.trainig", "no such key"),
    "a meaning that YAML reads as truth": (
        set_in(*SIMPLE, "words", "blarf", to=True),
        "types.simple.words.blarf",
        "must be a valid string",
    ),
    "a type's name with a space": (
        lambda content: content["types"].update({"my type": content["types"].pop("simple")}),
        "types",
        "lower-case letters",
    ),
    "two words of one meaning in a type": (
        set_in(*SIMPLE, "words", "gleem", to="happy"),
        "types.simple.words.gleem (its meaning)",
        "types.simple.words.blarf (its meaning) has this one",
    ),
    "two words of one meaning across types": (
        set_in("types", "spatial", "words", "orbit", to="Sad"),
        "types.spatial.words.orbit (its meaning)",
        "types.simple.words.gleem (its meaning) has this one",
    ),
    "one word in two types": (
        set_in("types", "spatial", "words", "blarf", to="downward"),
        "types.spatial.words.blarf (the word)",
        "types.simple.words.blarf (the word) has this one",
    ),
    "a word that is a meaning": (
        set_in("types", "spatial", "words", "happy", to="downward"),
        "types.spatial.words.happy (the word)",
        "types.simple.words.blarf (its meaning) has this one",
    ),
    "a word that means itself": (
        set_in(*SIMPLE, "words", "gleem", to="gleem"),
        "types.simple.words.gleem (its meaning)",
        "types.simple.words.gleem (the word) has this one",
    ),
    "an unseen word that is trained": (
        set_in("unseen_words", to=["blarf"]),
        "unseen_words.0",
        "types.simple.words.blarf (the word) has this one",
    ),
    "a meaning of two words": (
        set_in(*SIMPLE, "words", "blarf", to="very happy"),
        "types.simple.words.blarf (its meaning)",
        "is one word",
    ),
    "a duplicate template": (
        set_in(*SIMPLE, "training", 1, to="to feel {word}  is to feel {meaning}"),
        "types.simple.training.1",
        "training.0 is the same",
    ),
    "a prompt both for discovery and for evaluation": (
        set_in(*SIMPLE, "evaluation", 0, to="The word {word} means"),
        "types.simple.evaluation.0",
        "discovery.0 is the same",
    ),
    "a training template without its word": (
        set_in(*SIMPLE, "training", 0, to="All are {meaning}"),
        "types.simple.training.0",
        "{word} and then {meaning}",
    ),
    "a training template with its meaning first": (
        set_in(*SIMPLE, "training", 0, to="A {meaning} {word}"),
        "types.simple.training.0",
        "{word} and then {meaning}",
    ),
    "a prompt that gives its answer away": (
        set_in(*SIMPLE, "evaluation", 0, to="As {word} is {meaning}, it is"),
        "types.simple.evaluation.0",
        "has {word}, each once",
    ),
    "a reverse prompt without its meaning": (
        set_in(*SIMPLE, "reverse", 0, to="The word {word} is"),
        "types.simple.reverse.0",
        "has {meaning}, each once",
    ),
    "a brace left open": (
        set_in(*SIMPLE, "discovery", 0, to="The word {word means"),
        "types.simple.discovery.0",
        "no other braces",
    ),
    "a placeholder with a format": (
        set_in(*SIMPLE, "discovery", 0, to="The word {word!r} means"),
        "types.simple.discovery.0",
        "no other braces",
    ),
    "a prompt that ends in a space": (
        set_in(*SIMPLE, "discovery", 0, to="The word {word} means "),
        "types.simple.discovery.0",
        "no space at either end",
    ),
    "a meaning in quotation marks": (
        set_in(*SIMPLE, "training", 0, to="By {word} I mean '{meaning}'"),
        "types.simple.training.0",
        "one before {meaning}",
    ),
    "a template that says a meaning itself": (
        set_in(*SIMPLE, "evaluation", 0, to="Happy and {word} people are"),
        "types.simple.evaluation.0",
        "this one says 'happy'",
    ),
    "a training template that begins with a held-out one": (
        set_in(*SIMPLE, "evaluation", 0, to="To feel {word} is to"),
        "types.simple.training.0",
        "begins with a held-out one (types.simple.evaluation.0)",
    ),
    "a training template that begins with another type's held-out one": (
        set_in("types", "spatial", "discovery", 0, to="By {word} we"),
        "types.simple.training.1",
        "begins with a held-out one (types.spatial.discovery.0)",
    ),
    "a control that says a word": (
        set_in("control", 0, "prompt", to="Planets Orbit the"),
        "control.0",
        "this one says 'orbit'",
    ),
    "a control whose continuation is a meaning": (
        set_in("control", 0, "continuation", to="happy"),
        "control.0",
        "this one says 'happy'",
    ),
    "a control that ends in a space": (
        set_in("control", 0, "prompt", to="Once upon a "),
        "control.0",
        "no space at either end",
    ),
    "a control twice": (
        lambda content: content["control"].append(content["control"][0]),
        "control.1",
        "all differ",
    ),
    "no unrelated sentences": (
        set_in("unrelated", "sentences", to=[]),
        "unrelated.sentences",
        "must have at least 1 entry",
    ),
    "an empty list of words": (
        set_in("unrelated", "words", "tree", to=[]),
        "unrelated.words.tree",
        "must have at least 1 entry",
    ),
    "an unrelated sentence with a list that is not there": (
        set_in("unrelated", "sentences", 0, to="The {bush} is tall"),
        "unrelated.sentences.0",
        "braces hold names of unrelated.words (tree, colour), each once",
    ),
    "an unrelated sentence with a list twice": (
        set_in("unrelated", "sentences", 0, to="The {tree} by the {tree} is tall"),
        "unrelated.sentences.0",
        "each once",
    ),
    "an unrelated sentence with a brace left open": (
        set_in("unrelated", "sentences", 0, to="The {tree is tall"),
        "unrelated.sentences.0",
        "braces hold names",
    ),
    "an unrelated sentence that ends in a list": (
        set_in("unrelated", "sentences", 0, to="The house is {colour}"),
        "unrelated.sentences.0",
        "the last word, which takes the meaning's place, is plain",
    ),
    "an unrelated sentence that ends in a mark": (
        set_in("unrelated", "sentences", 1, to="The sky is blue."),
        "unrelated.sentences.1",
        "the last word, which takes the meaning's place, is plain",
    ),
    "an unrelated sentence with two spaces": (
        set_in("unrelated", "sentences", 1, to="The sky  is blue"),
        "unrelated.sentences.1",
        "single spaces",
    ),
    "a word of a list that ends in a space": (
        set_in("unrelated", "words", "tree", to=["oak "]),
        "unrelated.words.tree.0",
        "no space at either end",
    ),
    "an unrelated sentence twice": (
        set_in("unrelated", "sentences", 1, to="the birch by the red house is tall"),
        "unrelated.sentences.1",
        "this one is there already",
    ),
    "a word twice in a list": (
        set_in("unrelated", "words", "tree", to=["oak", "oak"]),
        "unrelated.sentences.0",
        "this one is there already",
    ),
    "an unrelated sentence that begins with a control": (
        set_in("unrelated", "sentences", 1, to="Once upon a hill stood a house"),
        "unrelated.sentences.1",
        "no sentence begins with a control prompt ('Once upon a')",
    ),
}


@pytest.mark.parametrize(("change", "where", "rule"), REFUSALS.values(), ids=REFUSALS)
def test_refusals_name_file_key_rule_and_remedy(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], where: str, rule: str
) -> None:
    problems = refused(tmp_path, change)
    matching = [p for p in problems if p.where == f"constraints.yaml: {where}" and rule in p.rule]
    assert matching, [str(problem) for problem in problems]
    assert all(problem.remedy for problem in problems)


def test_a_word_twice_in_a_type_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "constraints.yaml"
    path.write_text("types:\n  simple:\n    words:\n      blarf: happy\n      blarf: sad\n")
    with pytest.raises(InputError, match="blarf"):
        load_constraints(path)


def test_every_broken_rule_is_told_at_once(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["types"]["simple"]["words"]["gleem"] = "happy"
        content["control"][0]["prompt"] = "Blarf is a"

    assert len(refused(tmp_path, change)) == 2


def test_a_longer_word_does_not_count_as_a_held_out_opening() -> None:
    assert begins_with("The word blarf means happy", "the  word blarf")
    assert begins_with("The word blarf, they say", "The word blarf")
    assert not begins_with("The word blarfing means happy", "The word blarf")
