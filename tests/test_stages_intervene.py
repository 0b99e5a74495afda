"""Stage ``intervene@run`` on the tiny study."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from circuitdrift.circuits.files import load_circuits, save_circuits
from circuitdrift.core import paths
from circuitdrift.core.errors import InputError
from circuitdrift.models.loading import load_model
from circuitdrift.models.lora import adapted
from circuitdrift.params import Params, load_params
from circuitdrift.stages import intervene

FIRST, SECOND = "mapped-1", "rotated-1-1"  # recipients, of seeds in which no node is chosen
KEY = ["type", "word", "k", "nodes"]


@pytest.fixture(scope="module")
def study(tiny_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the stage reads, and what it wrote for two recipients."""
    root = tmp_path_factory.mktemp("intervene")
    shutil.copytree(tiny_study / paths.ATTRIBUTIONS, root / paths.ATTRIBUTIONS)
    shutil.copy(tiny_study / paths.PARAMS, root)
    (root / "models").symlink_to(tiny_study / "models")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for run in (FIRST, SECOND):
            intervene.run(load_params(paths.PARAMS), run)
    return root


@pytest.fixture(autouse=True)
def before(study: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, pd.DataFrame]]:
    """The first recipient's tables; what a test does to them is undone."""
    monkeypatch.chdir(study)
    written = {file.name: file.read_bytes() for file in paths.interventions(FIRST).iterdir()}
    yield {name: read(name) for name in intervene.COLUMNS}
    for name, content in written.items():
        (paths.interventions(FIRST) / name).write_bytes(content)


def changed(**settings: Any) -> Params:
    params = load_params(paths.PARAMS)
    return params.model_copy(update={"intervene": params.intervene.model_copy(update=settings)})


def read(name: str, run: str = FIRST) -> pd.DataFrame:
    file = paths.interventions(run) / f"{name}.csv"
    return pd.read_csv(file, dtype=dict.fromkeys(("model", "circuit_from"), str))


def test_every_other_assignment_of_the_tested_seeds_is_a_donor(
    before: dict[str, pd.DataFrame],
) -> None:
    table = before["interchange"]
    assert table.groupby(["donor", "recipient"]).size().to_dict() == {
        ("rotated-1-1", FIRST): 6 * 2 * 3,
        ("rotated-2-1", FIRST): 6 * 2 * 3,
    }
    assert set(table["n_prompts"]) == {2}
    # Nothing is patched in the columns of the two whole models; what is patched moves.
    ends = table.groupby(["donor", "word"])[["donor_d", "recipient_d"]].nunique()
    assert (ends == 1).all(axis=None)
    assert (table["patched_d"] != table["recipient_d"]).mean() > 0.9


def test_two_runs_that_change_places_read_the_same_logits(
    before: dict[str, pd.DataFrame],
) -> None:
    one = before["interchange"].query("donor == @SECOND").set_index(KEY)
    other = read("interchange", SECOND).query("donor == @FIRST").set_index(KEY)
    for own, opposite in (("donor_d", "recipient_d"), ("recipient_d", "donor_d")):
        assert one[own].to_numpy() == pytest.approx(-other.loc[one.index, opposite], abs=1e-4)


@torch.no_grad()
def test_d_is_the_logit_of_the_donors_answer_minus_that_of_the_recipients(
    before: dict[str, pd.DataFrame],
) -> None:
    base, expected = load_model(paths.BASE_MODEL), []
    with adapted(base, paths.checkpoint(FIRST, "100")) as model:
        for prompt in load_circuits(paths.attribution("base", "base")).prompts:
            if prompt.role == "near" and prompt.word == "orbit":
                logits = model(torch.tensor([prompt.tokens])).logits[0, -1]
                after = prompt.answers[(prompt.answer + 1) % 3]
                expected.append(float(logits[after] - logits[prompt.answers[prompt.answer]]))
    rows = before["interchange"].query("donor == @SECOND and word == 'orbit'")
    assert rows["recipient_d"].iloc[0] == pytest.approx(sum(expected) / 2, abs=1e-4)


def test_nodes_are_chosen_in_the_runs_of_other_seeds_alone(
    before: dict[str, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(paths.ATTRIBUTIONS, tmp_path / paths.ATTRIBUTIONS)
    (tmp_path / "models").symlink_to(Path("models").resolve())
    params = changed()
    monkeypatch.chdir(tmp_path)

    def negate(run: str) -> None:
        file = paths.attribution(run, "100")
        save_circuits(file, [replace(one, effects=-one.effects) for one in load_circuits(file)])

    for run in (FIRST, SECOND, "rotated-2-1"):
        negate(run)
    intervene.run(params, FIRST)
    pd.testing.assert_frame_equal(read("interchange"), before["interchange"])
    negate("mapped-0")
    intervene.run(params, FIRST)
    moved = read("interchange")["patched_d"] != before["interchange"]["patched_d"]
    assert moved[before["interchange"]["nodes"] == "chosen"].mean() > 0.5


@pytest.mark.parametrize("settings", [{"seeds": (0, 1)}, {"conditions": ("mapped",)}])
def test_without_runs_to_choose_in_or_donors_there_is_no_interchange(
    settings: dict[str, Any], before: dict[str, pd.DataFrame]
) -> None:
    intervene.run(changed(**settings), FIRST)
    table = read("interchange")
    assert table.empty
    assert list(table) == list(before["interchange"])
    pd.testing.assert_frame_equal(read("specificity"), before["specificity"])


def test_the_bases_own_curves_are_written_once(before: dict[str, pd.DataFrame]) -> None:
    for table, models in (
        (before["faithfulness"], ["100", "base"]),
        (read("faithfulness", SECOND), ["100"]),
    ):
        assert table["model"].unique().tolist() == models
        assert len(table) == len(models) * 2 * 2 * 2 * 6
        whole = table[table["size"] == 1]
        assert whole["value"].to_numpy() == pytest.approx(whole["full"])
        ends = table.groupby(["model", "ablation", "word"])[["full", "empty"]].nunique()
        assert (ends == 1).all(axis=None)


def test_a_models_circuit_in_its_own_model_is_that_of_the_curve(
    before: dict[str, pd.DataFrame],
) -> None:
    table = before["transfer"]
    assert len(table) == 2 * 2 * 6
    at_home = table[table["circuit_from"] == table["model"]]
    curve = before["faithfulness"].query("circuit == 'own' and size == 0.1 and ablation == 'mean'")
    merged = at_home.merge(curve, on=["model", "type", "word"], validate="1:1")
    assert len(merged) == 2 * 6
    for column in ("value", "full", "empty"):
        assert merged[f"{column}_x"].to_numpy() == pytest.approx(merged[f"{column}_y"], abs=1e-4)


def test_circuits_are_ablated_on_every_type_and_on_controls(
    before: dict[str, pd.DataFrame],
) -> None:
    table = before["specificity"]
    assert table.groupby(["circuit", "prompts"]).size().to_dict() == {
        (circuit, prompts): 2 if prompts == "control" else 3
        for circuit in ("simple", "spatial", "random")
        for prompts in ("simple", "spatial", "control")
    }
    assert (table["ablated"] != table["full"]).all()


def test_the_seed_decides_the_random_circuits_alone(before: dict[str, pd.DataFrame]) -> None:
    intervene.run(changed(seed=1), FIRST)
    table = read("faithfulness")
    same = before["faithfulness"]["value"] == table["value"]
    random = (table["circuit"] == "random") & (table["size"] < 1)
    assert same[~random].all()
    assert not same[random].any()
    intervene.run(changed(), FIRST)
    for name, expected in before.items():
        pd.testing.assert_frame_equal(read(name), expected, check_exact=True)


def test_more_near_prompts_than_circuits_are_refused() -> None:
    with pytest.raises(InputError, match=r"\(got 9\)"):
        intervene.run(changed(circuit_prompts_per_word=9), FIRST)
