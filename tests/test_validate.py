"""The stage ``validate@run`` on a small study whose circuits are written by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from circuit_samples import circuit
from circuitdrift import paths
from circuitdrift.artifacts import write_json, write_table
from circuitdrift.attribution.prompts import segment_tokens
from circuitdrift.circuit_files import save_circuits
from circuitdrift.config.params import Params
from circuitdrift.config.train import Lora
from circuitdrift.dataset import Prompt, read_prompts
from circuitdrift.errors import InputError
from circuitdrift.identifiers import BASE
from circuitdrift.models.loading import load_model, single_token_id
from circuitdrift.models.lora import add_lora, save_adapter
from circuitdrift.stages import validate

RUN = "mapped-0"
CHECKPOINTS = ("050", "100")
KEPT = {"discovery": 2, "evaluation": 2, "control": 3}
SIZES = (0.01, 0.1, 1.0)
WORDS = {"simple": ("blarf", "gleem", "zephyr"), "spatial": ("cascade", "glide", "orbit")}


@pytest.fixture
def study(small_study: Params, tiny_tokenizer: PreTrainedTokenizerFast) -> Params:
    """Two checkpoints, their circuits, and recruited features of two words."""
    for seed, checkpoint in enumerate(CHECKPOINTS):
        write_adapter(paths.checkpoint(RUN, checkpoint), seed)
    prompts = some_prompts()
    files = [paths.attribution(BASE, BASE)]
    files += [paths.attribution(RUN, checkpoint) for checkpoint in CHECKPOINTS]
    for seed, file in enumerate(files):
        write_circuits(file, prompts, tiny_tokenizer, seed)
    write_recruited([("blarf", 0, 7), ("blarf", 1, 3), ("orbit", 1, 40)])
    return small_study.model_copy(
        update={
            "validation": small_study.validation.model_copy(
                update={
                    "prompts_per_word": 2,
                    "sizes": SIZES,
                    "transfer_size": 0.1,
                    "random_circuits": 2,
                    "ranked_nodes": 5,
                    "ranked_prompts_per_word": 1,
                    "batch_size": 16,
                }
            )
        }
    )


def write_adapter(directory: Path, seed: int) -> None:
    lora = Lora(r=2, alpha=4.0, dropout=0.0, target_modules="attention")
    model = add_lora(load_model(paths.BASE_MODEL), lora, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    save_adapter(model, directory)
    write_json(directory / "progress.json", {"step": 1})


def some_prompts() -> list[Prompt]:
    """The first prompts of each word and role."""
    chosen: list[Prompt] = []
    for prompt in read_prompts(paths.PROMPTS):
        same = [one for one in chosen if (one.role, one.word) == (prompt.role, prompt.word)]
        if len(same) < KEPT.get(prompt.role, 0):
            chosen.append(prompt)
    return chosen


def write_circuits(
    file: Path, prompts: list[Prompt], tokenizer: PreTrainedTokenizerFast, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    circuits = []
    for prompt in prompts:
        tokens, segments = segment_tokens(tokenizer, prompt.text, prompt.word)
        effects = torch.randn(2, len(tokens), 48, generator=generator)
        answer, others = 5, (6, 7)
        if prompt.role != "control":
            answer = single_token_id(tokenizer, str(prompt.answer))
            others = tuple(single_token_id(tokenizer, other) for other in prompt.others)
        circuits.append(
            replace(
                circuit(prompt.id, effects=effects),
                tokens=tokens,
                segments=segments,
                answer=answer,
                others=others,
            )
        )
    save_circuits(file, circuits)


def write_recruited(features: list[tuple[str, int, int]]) -> None:
    columns = ["word", "layer", "feature"]
    table = pd.DataFrame(features, columns=columns).assign(direction="recruited", type="any")
    retired = pd.DataFrame([("gleem", 0, 1)], columns=columns)
    write_table(
        paths.RECRUITED_TABLE,
        pd.concat([table, retired.assign(direction="retired", type="any")])[
            ["word", "type", "layer", "feature", "direction"]
        ],
    )


def table(name: str) -> pd.DataFrame:
    file = paths.validation_tables(RUN) / f"{name}.csv"
    return pd.read_csv(file, dtype=dict.fromkeys(validate.CHECKPOINT_COLUMNS, str))


def written() -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in paths.validation_tables(RUN).iterdir()}


def test_it_writes_every_table_and_twice_the_same_bytes(study: Params) -> None:
    validate.run(study, RUN)
    first = written()
    names = {"faithfulness", "transfer", "patching", "specificity", "ablation_rank"}
    assert set(first) == {f"{name}.csv" for name in names}
    check_faithfulness(table("faithfulness"))
    check_transfer(table("transfer"), table("faithfulness"))
    check_patching(table("patching"), table("faithfulness"))
    check_specificity(table("specificity"))
    check_ablation_rank(table("ablation_rank"))
    for name in names:
        # A rank correlation has its own check.
        assert not table(name).drop(columns="spearman", errors="ignore").isna().any(axis=None), name
    validate.run(study, RUN)
    assert written() == first


def check_faithfulness(found: pd.DataFrame) -> None:
    assert list(found) == [
        *("checkpoint", "ablation", "circuit", "size", "prompt", "type", "word"),
        *("value", "full", "empty"),
    ]
    circuits = ["base", "own", "random-0", "random-1"]
    assert len(found) == 3 * 2 * len(circuits) * len(SIZES) * 12
    assert found["checkpoint"].unique().tolist() == ["base", *CHECKPOINTS]
    assert sorted(found["circuit"].unique()) == circuits
    assert {
        type_: tuple(sorted(rows.unique())) for type_, rows in found.groupby("type")["word"]
    } == (WORDS)
    whole = found[found["size"] == 1]
    assert (whole["value"] == whole["full"]).all()
    key = ["ablation", "size", "prompt"]
    for checkpoint, rows in found.groupby("checkpoint"):
        by_circuit = {name: of.set_index(key)["value"] for name, of in rows.groupby("circuit")}
        assert by_circuit["own"].equals(by_circuit["base"]) == (checkpoint == "base")
        assert not by_circuit["own"].equals(by_circuit["random-0"])
        assert not by_circuit["random-0"].equals(by_circuit["random-1"])
    ends = found.groupby(["checkpoint", "ablation", "prompt"])[["full", "empty"]].nunique()
    assert (ends == 1).all(axis=None)


def check_transfer(found: pd.DataFrame, faithfulness: pd.DataFrame) -> None:
    assert list(found) == [
        *("circuit_from", "model", "prompt", "type", "word", "value", "full", "empty")
    ]
    assert len(found) == 3 * 3 * 12
    # the circuit of a checkpoint in its own model is that of the faithfulness curve
    at_home = found[found["circuit_from"] == found["model"]]
    curve = faithfulness.query("circuit == 'own' and size == 0.1 and ablation == 'mean'")
    merged = at_home.merge(
        curve, left_on=["model", "prompt"], right_on=["checkpoint", "prompt"], validate="1:1"
    )
    assert len(merged) == 36
    for column in ("value", "full", "empty"):
        assert merged[f"{column}_x"].to_numpy() == pytest.approx(merged[f"{column}_y"], abs=1e-4)


def check_patching(found: pd.DataFrame, faithfulness: pd.DataFrame) -> None:
    assert list(found) == [
        *("direction", "nodes", "n_nodes", "prompt", "type", "word", "base", "tuned", "patched")
    ]
    # two directions, three node sets, two words with recruited features, two prompts each
    assert len(found) == 2 * 3 * 2 * 2
    assert set(found["nodes"]) == {"recruited", "random-0", "random-1"}
    counts = found.groupby("word")["n_nodes"].unique()
    assert {word: list(n) for word, n in counts.items()} == {"blarf": [2], "orbit": [1]}
    for column, checkpoint in (("base", "base"), ("tuned", "100")):
        full = faithfulness[faithfulness["checkpoint"] == checkpoint].groupby("prompt")["full"]
        assert found[column].to_numpy() == pytest.approx(full.first()[found["prompt"]].to_numpy())
    unmoved = found["base"].where(found["direction"] == "sufficiency", found["tuned"])
    assert ((found["patched"] - unmoved).abs() > 1e-6).all()


def check_specificity(found: pd.DataFrame) -> None:
    assert list(found) == ["circuit", "prompts", "prompt", "full", "ablated"]
    assert found.groupby(["circuit", "prompts"]).size().to_dict() == {
        (circuit, prompts): 3 if prompts == "control" else 6
        for circuit in ("simple", "spatial", "random")
        for prompts in ("simple", "spatial", "control")
    }
    assert ((found["ablated"] - found["full"]).abs() > 1e-6).all()


def check_ablation_rank(found: pd.DataFrame) -> None:
    assert list(found) == ["checkpoint", "prompt", "type", "word", "n_nodes", "spearman"]
    assert found["checkpoint"].tolist() == ["base"] * 6 + ["100"] * 6
    assert (found["n_nodes"] == 5).all()
    # Not defined where no node of a prompt moves the target by a float's last bit, which in this
    # model is up to the machine's kernels.
    defined = found["spearman"].dropna()
    assert len(defined) > len(found) / 2
    assert defined.between(-1, 1).all()


def test_without_recruited_features_patching_is_a_header(study: Params) -> None:
    write_recruited([])
    validate.run(study, RUN)
    text = (paths.validation_tables(RUN) / "patching.csv").read_text(encoding="utf-8")
    assert text == "direction,nodes,n_nodes,prompt,type,word,base,tuned,patched\n"


def test_more_evaluation_prompts_than_circuits_are_refused(study: Params) -> None:
    validation = study.validation.model_copy(update={"prompts_per_word": 3})
    with pytest.raises(InputError, match=r"validation\.prompts_per_word: got 3") as refused:
        validate.run(study.model_copy(update={"validation": validation}), RUN)
    assert "set attribution.evaluation_prompts_per_word to 3 or more" in str(refused.value)
    assert not paths.validation_tables(RUN).exists()


def test_the_seed_decides_the_random_circuits(study: Params) -> None:
    validate.run(study, RUN)
    before = table("faithfulness")
    validation = study.validation.model_copy(update={"seed": 1})
    validate.run(study.model_copy(update={"validation": validation}), RUN)
    same = before["value"] == table("faithfulness")["value"]
    random = before["circuit"].str.startswith("random")
    assert same[~random].all()
    assert not same[random & (before["size"] == 0.1)].any()
