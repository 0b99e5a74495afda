"""Stage ``intervene@run`` on the tiny study."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from circuitdrift.core import paths
from circuitdrift.core.errors import InputError
from circuitdrift.core.files import write_table
from circuitdrift.params import Params, load_params
from circuitdrift.stages import intervene

RUN = "mapped-0"
SMALL: dict[str, Any] = {
    "prompts_per_word": 2,
    "sizes": (0.01, 0.1, 1.0),
    "transfer_size": 0.1,
    "random_circuits": 2,
    "ranked_nodes": 5,
    "batch_size": 16,
}
MODELS = ("base", "050", "100")


@pytest.fixture(scope="module")
def study(tiny_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny study with recruited features of two words, tested."""
    root = tmp_path_factory.mktemp("tested")
    shutil.copytree(tiny_study / "data", root / "data")
    shutil.copy(tiny_study / paths.PARAMS, root)
    (root / "models").symlink_to(tiny_study / "models")
    features = [("blarf", 0, 7), ("blarf", 1, 3), ("orbit", 1, 40)]
    recruited = pd.DataFrame(features, columns=["word", "layer", "feature"])
    retired = pd.DataFrame([("gleem", 0, 1)], columns=recruited.columns)
    write_table(
        root / paths.RECRUITED_TABLE,
        pd.concat([recruited.assign(direction="recruited"), retired.assign(direction="retired")]),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        intervene.run(changed(SMALL), RUN)
    return root


@pytest.fixture(autouse=True)
def _in_the_study(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(study)


def changed(settings: dict[str, Any]) -> Params:
    params = load_params(paths.PARAMS)
    return params.model_copy(update={"intervene": params.intervene.model_copy(update=settings)})


def read(name: str) -> pd.DataFrame:
    file = paths.interventions(RUN) / f"{name}.csv"
    return pd.read_csv(file, dtype=dict.fromkeys(intervene.CHECKPOINT_COLUMNS, str))


def test_a_circuit_is_kept_at_every_size_in_every_model() -> None:
    table = read("faithfulness")
    assert len(table) == 3 * 2 * 4 * len(SMALL["sizes"]) * 12
    assert table["checkpoint"].unique().tolist() == list(MODELS)
    whole = table[table["size"] == 1]
    assert (whole["value"] == whole["full"]).all()
    for checkpoint, rows in table.groupby("checkpoint"):
        by_circuit = {
            name: of.set_index(["ablation", "size", "prompt"])["value"]
            for name, of in rows.groupby("circuit")
        }
        assert set(by_circuit) == {"base", "own", "random-0", "random-1"}
        assert by_circuit["own"].equals(by_circuit["base"]) or checkpoint != "base"
        assert not by_circuit["random-0"].equals(by_circuit["random-1"])
        assert not by_circuit["random-0"].equals(by_circuit["own"])
    ends = table.groupby(["checkpoint", "ablation", "prompt"])[["full", "empty"]].nunique()
    assert (ends == 1).all(axis=None)


def test_a_checkpoints_circuit_in_its_own_model_is_that_of_the_curve() -> None:
    table = read("transfer")
    assert len(table) == 3 * 3 * 12
    at_home = table[table["circuit_from"] == table["model"]]
    curve = read("faithfulness").query("circuit == 'own' and size == 0.1 and ablation == 'mean'")
    merged = at_home.merge(
        curve, left_on=["model", "prompt"], right_on=["checkpoint", "prompt"], validate="1:1"
    )
    assert len(merged) == 3 * 12
    for column in ("value", "full", "empty"):
        assert merged[f"{column}_x"].to_numpy() == pytest.approx(merged[f"{column}_y"], abs=1e-4)


def test_recruited_features_are_patched_in_both_directions() -> None:
    table = read("patching")
    # Two directions, three sets of features, two words with recruited features, two prompts each.
    assert len(table) == 2 * 3 * 2 * 2
    counts = table.groupby("word")["n_nodes"].unique()
    assert {word: list(n) for word, n in counts.items()} == {"blarf": [2], "orbit": [1]}
    curve = read("faithfulness")
    for column, checkpoint in (("base", "base"), ("tuned", "100")):
        full = curve[curve["checkpoint"] == checkpoint].groupby("prompt")["full"].first()
        assert table[column].to_numpy() == pytest.approx(full[table["prompt"]].to_numpy())
    unpatched = table["base"].where(table["direction"] == "sufficiency", table["tuned"])
    assert (table["patched"] != unpatched).all()


def test_circuits_and_nodes_are_ablated() -> None:
    specificity, ranks = read("specificity"), read("ablation_rank")
    assert specificity.groupby(["circuit", "prompts"]).size().to_dict() == {
        (circuit, prompts): 2 if prompts == "control" else 6
        for circuit in ("simple", "spatial", "random")
        for prompts in ("simple", "spatial", "control")
    }
    assert (specificity["ablated"] != specificity["full"]).all()
    assert ranks["checkpoint"].tolist() == ["base"] * 6 + ["100"] * 6
    # A correlation is not defined where no node of a prompt moves the target by a float's last bit.
    assert ranks["spearman"].dropna().between(-1, 1).all()


def test_the_seed_decides_the_random_circuits_alone() -> None:
    before = read("faithfulness")
    intervene.run(changed({**SMALL, "seed": 1}), RUN)
    same = before["value"] == read("faithfulness")["value"]
    random = before["circuit"].str.startswith("random")
    assert same[~random].all()
    assert not same[random & (before["size"] == 0.1)].any()
    intervene.run(changed(SMALL), RUN)
    pd.testing.assert_frame_equal(read("faithfulness"), before)


def test_more_evaluation_prompts_than_circuits_are_refused() -> None:
    with pytest.raises(InputError, match=r"\(got 9\)"):
        intervene.run(changed({"prompts_per_word": 9}), RUN)
