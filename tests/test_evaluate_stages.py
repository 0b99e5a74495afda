"""The evaluation stages on the tiny model: what they write, and the same bytes twice."""

from __future__ import annotations

import pandas as pd
import pytest

from circuitdrift import paths
from circuitdrift.artifacts import read_json
from circuitdrift.config.params import Params
from circuitdrift.dataset import read_prompts
from circuitdrift.errors import InputError
from circuitdrift.evaluation import headline
from circuitdrift.measures import MEASURES
from circuitdrift.models.adapter_norms import adapter_norms
from circuitdrift.stages import evaluate, evaluate_base, finetune

COLUMNS = ["run", "condition", "seed", "checkpoint", "step", "prompt", "role", "type", "word"]
FROM_BASE = ["activation_distance", "kl_to_base"]


def test_the_stage_evaluates_the_base_once(small_study: Params) -> None:
    evaluate_base.run(small_study)
    table = pd.read_csv(paths.evaluation_table("base"))
    assert list(table.columns) == [*COLUMNS, *MEASURES]
    asked = [prompt for prompt in read_prompts(paths.PROMPTS) if prompt.role != "discovery"]
    assert list(table["prompt"]) == [prompt.id for prompt in asked]
    identity = table[["run", "condition", "seed", "checkpoint", "step"]].drop_duplicates()
    assert identity.to_numpy().tolist() == [["base", "base", 0, "base", 0]]
    distances = table.loc[table["role"] == "evaluation", FROM_BASE]
    assert (distances == 0).all(axis=None)
    metrics = read_json(paths.evaluation_metrics("base"))
    assert metrics == headline(table)
    assert set(metrics) == {"base"}
    written = paths.evaluation_table("base").read_bytes()
    evaluate_base.run(small_study)
    assert paths.evaluation_table("base").read_bytes() == written


def test_the_stage_evaluates_every_checkpoint(small_study: Params) -> None:
    params = small_study
    with pytest.raises(InputError, match="finetune@mapped-0"):
        evaluate.run(params, "mapped-0")
    finetune.run(params, "mapped-0")
    evaluate.run(params, "mapped-0")

    table = pd.read_csv(paths.evaluation_table("mapped-0"), dtype={"checkpoint": str})
    assert list(table.columns) == [*COLUMNS, *MEASURES]
    asked = [prompt for prompt in read_prompts(paths.PROMPTS) if prompt.role != "discovery"]
    assert len(table) == 4 * len(asked)
    steps = table.groupby("checkpoint")["step"].unique().map(list).to_dict()
    assert steps == {"025": [2], "050": [3], "075": [5], "100": [6]}
    assert set(table["condition"]) == {"mapped"}
    metrics = read_json(paths.evaluation_metrics("mapped-0"))
    assert set(metrics) == {"025", "050", "075", "100"}
    assert metrics["100"]["p"] > metrics["025"]["p"]
    moved = table[table["role"] == "evaluation"].groupby("checkpoint")[FROM_BASE].mean()
    assert (moved.loc["025"] > 0).all()
    assert (moved.loc["100"] > moved.loc["025"]).all()

    norms = pd.read_csv(paths.lora_norms("mapped-0"), dtype={"checkpoint": str})
    assert list(norms.columns) == ["checkpoint", "layer", "norm"]
    assert norms["layer"].tolist() == [0, 1] * 4
    expected = adapter_norms(paths.checkpoint("mapped-0", "100"))
    last = norms[norms["checkpoint"] == "100"].set_index("layer")["norm"]
    assert last.to_dict() == pytest.approx(expected, rel=1e-8)

    outputs = [paths.evaluation_table("mapped-0"), paths.lora_norms("mapped-0")]
    written = [path.read_bytes() for path in outputs]
    evaluate.run(params, "mapped-0")
    assert [path.read_bytes() for path in outputs] == written
