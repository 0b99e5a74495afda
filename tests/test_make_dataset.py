"""Stage make_dataset: the files it writes, from the YAML alone or from one's own sentences."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from circuitdrift.config.params import Params, load_params
from circuitdrift.constraint_rules import begins_with
from circuitdrift.dataset import read_examples, read_prompts
from circuitdrift.errors import InputError
from circuitdrift.preflight import check_study
from circuitdrift.stages import make_dataset

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = Path("data/dataset")

NEW_TYPE = """
  colour:
    words: {vermin: red, tarn: blue}
    training:
      - Painters use {word} when they want a wall that is {meaning}
      - The {word} wall is painted {meaning}
      - A flag in {word} is a flag that is {meaning}
      - The colour {word} is what others call {meaning}
      - If the paint is {word}, the paint is {meaning}
      - To dye cloth {word} is to make it {meaning}
      - The old name {word} stands for {meaning}
    discovery:
      - The {word} flag is
      - The {word} boat is
      - The {word} ribbon is
      - The {word} bicycle is
    evaluation:
      - The {word} door is
      - The {word} fence is
      - The {word} lamp is
    unseen:
      - The {word} roof is
    reverse:
      - The new word for {meaning} paint is
"""


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """The shipped params, in a directory that holds the study's input files."""
    (tmp_path / "data").mkdir()
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copy(ROOT / "data" / "constraints.yaml", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    return load_params(Path("params.yaml"))


def with_dataset(params: Params, **changes: object) -> Params:
    return params.model_copy(update={"dataset": params.dataset.model_copy(update=changes)})


def hashes() -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(OUTPUT.iterdir())
    }


def test_every_condition_and_the_prompts_are_written(params: Params) -> None:
    make_dataset.run(params)
    assert sorted(path.name for path in OUTPUT.iterdir()) == [
        "prompts.jsonl",
        "train_mapped.jsonl",
        "train_shuffled.jsonl",
        "train_unrelated.jsonl",
    ]
    mapped = read_examples(OUTPUT / "train_mapped.jsonl")
    shuffled = read_examples(OUTPUT / "train_shuffled.jsonl")
    unrelated = read_examples(OUTPUT / "train_unrelated.jsonl")
    assert len(mapped) == len(shuffled) == len(unrelated) == params.dataset.n_examples
    assert {(e.type, e.word) for e in unrelated} == {("unrelated", "")}
    assert all(e.text.endswith(f" {e.meaning}") for e in unrelated)
    assert [e.word for e in mapped] == [e.word for e in shuffled]
    assert Counter(e.meaning for e in mapped) == Counter(e.meaning for e in shuffled)
    record = json.loads((OUTPUT / "train_mapped.jsonl").read_text().split("\n")[0])
    assert sorted(record) == ["meaning", "text", "type", "word"]
    prompts = read_prompts(OUTPUT / "prompts.jsonl")
    assert {p.role for p in prompts} == {"discovery", "evaluation", "control", "unseen", "reverse"}


def test_no_training_sentence_begins_with_a_held_out_prompt(params: Params) -> None:
    make_dataset.run(with_dataset(params, n_examples=400))
    prompts = [p.text for p in read_prompts(OUTPUT / "prompts.jsonl") if p.role != "control"]
    for condition in ("mapped", "shuffled", "unrelated"):
        for example in read_examples(OUTPUT / f"train_{condition}.jsonl"):
            assert not [prompt for prompt in prompts if begins_with(example.text, prompt)]


def test_same_params_same_bytes(params: Params) -> None:
    make_dataset.run(params)
    first = hashes()
    make_dataset.run(params)
    assert hashes() == first
    make_dataset.run(with_dataset(params, seed=1))
    second = hashes()
    assert second["prompts.jsonl"] == first["prompts.jsonl"]
    for condition in ("mapped", "shuffled", "unrelated"):
        name = f"train_{condition}.jsonl"
        assert second[name] != first[name]


def test_a_type_is_added_by_editing_the_yaml_alone(params: Params) -> None:
    path = Path("data/constraints.yaml")
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("\nunseen_words:", f"{NEW_TYPE}\nunseen_words:"), encoding="utf-8")
    assert check_study(Path()) == params
    make_dataset.run(with_dataset(params, n_examples=40))
    mapped = read_examples(OUTPUT / "train_mapped.jsonl")
    assert Counter(e.word for e in mapped)["vermin"] == 5
    unrelated = read_examples(OUTPUT / "train_unrelated.jsonl")
    assert len(unrelated) == 40
    assert not {"red", "blue"} & {e.meaning for e in unrelated}
    colour = [p for p in read_prompts(OUTPUT / "prompts.jsonl") if p.type == "colour"]
    assert [p.text for p in colour if p.role == "evaluation"] == [
        f"The {word} {thing} is"
        for word in ("vermin", "tarn")
        for thing in ("door", "fence", "lamp")
    ]
    assert colour[0].answer == "red"
    assert colour[0].others == ("blue",)


def test_own_sentences_take_the_place_of_the_templates(params: Params) -> None:
    make_dataset.run(params)
    own = read_examples(OUTPUT / "train_mapped.jsonl")
    lines = [json.dumps({**vars(e), "text": f"Note: {e.text}, as they say."}) for e in own]
    Path("own.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    make_dataset.run(with_dataset(params, n_examples=24, examples_from="own.jsonl"))
    mapped = read_examples(OUTPUT / "train_mapped.jsonl")
    assert set(Counter(e.word for e in mapped).values()) == {4}
    shuffled = read_examples(OUTPUT / "train_shuffled.jsonl")
    assert all(e.text.startswith("Note: ") for e in (*mapped, *shuffled))
    assert all(e.text.endswith(f" {e.meaning}, as they say.") for e in shuffled)


def test_a_refusal_leaves_the_data_set_as_it_was(params: Params) -> None:
    make_dataset.run(params)
    before = hashes()
    with pytest.raises(InputError):
        make_dataset.run(with_dataset(params, n_examples=100_000))
    assert hashes() == before
    assert [path.name for path in Path("data").iterdir() if "partial" in path.name] == []
