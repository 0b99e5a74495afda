"""A researcher's own sentences: each bad line is named by file and number."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from circuitdrift.constraints import Constraints, load_constraints
from circuitdrift.dataset import Example
from circuitdrift.errors import InputError, Problem
from circuitdrift.examples import make_examples
from circuitdrift.training_file import read_training_file

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def constraints() -> Constraints:
    return load_constraints(ROOT / "data" / "constraints.yaml")


def line(text: str, type_: str = "simple", word: str = "blarf", meaning: str = "happy") -> str:
    return json.dumps({"text": text, "type": type_, "word": word, "meaning": meaning})


def whole(constraints: Constraints, per_word: int = 2) -> list[str]:
    """Lines that cover every word."""
    return [
        line(f"Number {index}: now {word} is {meaning} for good.", name, word, meaning)
        for name, type_ in constraints.types.items()
        for word, meaning in type_.words.items()
        for index in range(per_word)
    ]


def written(tmp_path: Path, lines: list[str]) -> Path:
    (tmp_path / "own.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def refused(tmp_path: Path, lines: list[str], constraints: Constraints) -> tuple[Problem, ...]:
    with pytest.raises(InputError) as error:
        read_training_file(written(tmp_path, lines), "own.jsonl", constraints)
    return error.value.problems


def test_good_lines_are_read_and_drawn_balanced(tmp_path: Path, constraints: Constraints) -> None:
    root = written(tmp_path, whole(constraints))
    pool = read_training_file(root, "own.jsonl", constraints)
    assert pool[0] == Example("Number 0: now blarf is happy for good.", "simple", "blarf", "happy")
    assert len(make_examples(pool, 12, seed=0)) == 12
    with pytest.raises(InputError, match="drawn from 12 distinct training sentences"):
        make_examples(pool, 13, seed=0)


BAD_LINES = {
    "not JSON": ("{text: no}", "one JSON object"),
    "an empty line": ("", "one JSON object"),
    "a list": ("[1]", "one JSON object"),
    "a number": ("3", "one JSON object"),
    "a key missing": ('{"text": "blarf is happy"}', "with the keys text, type, word, meaning"),
    "a key too many": (
        json.dumps({**json.loads(line("blarf is happy")), "label": "1"}),
        "and no others",
    ),
    "a text that is a number": (
        json.dumps({**json.loads(line("blarf is happy")), "text": 3}),
        "all text",
    ),
    "an unknown type": (line("blarf is happy", type_="colour"), "a type of data/constraints.yaml"),
    "an unknown word": (line("bluff is happy", word="bluff"), "a word of the type simple"),
    "another type's word": (line("glide is happy", word="glide"), "a word of the type simple"),
    "another meaning": (line("Oh, blarf is sad", meaning="sad"), "gives blarf: happy"),
    "a text without the word": (line("Everyone is happy"), "the text says 'blarf'"),
    "the word inside a longer one": (line("All blarfs are happy"), "the text says 'blarf'"),
    "a text without the meaning": (line("Everyone is blarf"), "and after it"),
    "the meaning before the word": (line("So happy is blarf"), "and after it"),
    "the meaning inside a longer one": (line("Now blarf is happyish"), "and after it"),
    "the meaning in quotation marks": (line("Now blarf means 'happy'"), "following a space"),
    "a held-out prompt": (
        line("In short, blarf means just this: happy"),
        "begins with a held-out prompt ('In short, blarf means')",
    ),
    "a sentence twice": (
        line("number 0: now  blarf is happy for good."),
        "line 1 has the same",
    ),
}


@pytest.mark.parametrize(("bad", "rule"), BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_is_named(tmp_path: Path, constraints: Constraints, bad: str, rule: str) -> None:
    lines = whole(constraints)
    problems = refused(tmp_path, [*lines[:4], bad, *lines[4:]], constraints)
    assert [problem.where for problem in problems] == ["own.jsonl, line 5"]
    assert rule in problems[0].rule
    assert problems[0].remedy


def test_every_bad_line_is_named(tmp_path: Path, constraints: Constraints) -> None:
    problems = refused(tmp_path, ["", *whole(constraints), "{}"], constraints)
    assert [problem.where for problem in problems] == ["own.jsonl, line 1", "own.jsonl, line 14"]


def test_a_word_without_sentences_is_named(tmp_path: Path, constraints: Constraints) -> None:
    lines = [entry for entry in whole(constraints) if "orbit" not in entry]
    (problem,) = refused(tmp_path, lines, constraints)
    assert problem.got == "no sentence about orbit"


def test_a_missing_file_is_refused(tmp_path: Path, constraints: Constraints) -> None:
    with pytest.raises(InputError) as error:
        read_training_file(tmp_path, "none.jsonl", constraints)
    (problem,) = error.value.problems
    assert problem.where == "params.yaml: dataset.examples_from"
    assert problem.remedy == "mend the path, or set it to data/constraints.yaml for its templates"


def test_a_capital_at_the_start_of_the_sentence_is_fine(
    tmp_path: Path, constraints: Constraints
) -> None:
    root = written(tmp_path, [*whole(constraints), line("Blarf, she said, is happy")])
    assert len(read_training_file(root, "own.jsonl", constraints)) == 13
