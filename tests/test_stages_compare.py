"""Stage ``compare`` on the tiny study: which tables it writes, and of which studies."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from circuitdrift.circuits.files import load_circuits
from circuitdrift.core import paths
from circuitdrift.core.errors import InputError
from circuitdrift.core.study import BASE
from circuitdrift.params import Params, load_params
from circuitdrift.stages import compare


@pytest.fixture
def study(tiny_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """What the stage reads, in a folder of the test's own; the working directory is there."""
    shutil.copytree(tiny_study / paths.ATTRIBUTIONS, tmp_path / paths.ATTRIBUTIONS)
    (tmp_path / "models").mkdir()
    (tmp_path / paths.BASE_MODEL).symlink_to(tiny_study / paths.BASE_MODEL)
    monkeypatch.chdir(tmp_path)
    return load_params(tiny_study / paths.PARAMS)


def with_runs(params: Params, conditions: tuple[str, ...], seeds: tuple[int, ...]) -> Params:
    runs = params.runs.model_copy(update={"conditions": conditions, "seeds": seeds})
    return params.model_copy(update={"runs": runs})


def read(name: str) -> pd.DataFrame:
    table = paths.COMPARE_TABLES / f"{name}.csv"
    return pd.read_csv(table, dtype={"from": str, "to": str, "checkpoint": str})


def test_it_writes_the_same_bytes_again_in_the_place_of_what_was_there(
    study: Params, tiny_study: Path
) -> None:
    paths.COMPARE_TABLES.mkdir(parents=True)
    (paths.COMPARE_TABLES / "left_over.csv").touch()
    compare.run(study)
    written = {file.name: file.read_bytes() for file in paths.COMPARE_TABLES.iterdir()}
    expected = (tiny_study / paths.COMPARE_TABLES).iterdir()
    assert written == {file.name: file.read_bytes() for file in expected}
    assert set(written) == {f"{name}.csv" for name in compare.TABLES}


def test_rows_stand_run_by_run_and_the_base_before_the_checkpoints(
    tiny_study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_study)
    drift = read("drift")
    runs = load_params(paths.PARAMS).runs.all
    circuits = load_circuits(paths.attribution(BASE, BASE))
    order = drift[["run", "change", "from", "to"]].drop_duplicates()
    assert list(order.itertuples(index=False, name=None)) == [
        (run.name, *pair)
        for run in runs
        for pair in (
            *(("random-0", "base", "050"), ("random-0", "base", "100")),
            *(("trained", "base", "050"), ("trained", "base", "100"), ("trained", "050", "100")),
        )
    ]
    assert drift.groupby(["run", "change", "from", "to"]).size().unique() == [len(circuits)]
    graphs = {circuit.prompt.id for circuit in circuits if circuit.graph is not None}
    assert set(drift.loc[drift["node_jaccard"].notna(), "prompt"]) == graphs
    places = read("change_by_place")
    assert places.equals(places.sort_values(compare.TABLES["change_by_place"][1]))
    assert read("positive_control")["run"].tolist() == [run.name for run in runs]
    assert set(read("recruitment_nulls")["comparison"]) == {
        "mapped vs shuffled",
        "mapped random-0 vs shuffled random-0",
    }


def test_a_single_run_without_nulls_is_compared_all_the_same(study: Params) -> None:
    shutil.rmtree(paths.random_attribution("mapped-0", 0, "100").parent)
    shutil.rmtree(paths.planted_description("mapped-0").parent)
    compare.run(with_runs(study, ("mapped",), (0,)))
    assert set(read("drift")["change"]) == {"trained"}
    assert read("overlap")["corrected"].isna().all()
    for name in ("between_runs", "positive_control", "recruited", "recruitment_nulls"):
        assert list(read(name)) == compare.TABLES[name][0]
        assert read(name).empty
    # What other runs left there would otherwise be counted among the stage's inputs.
    assert not paths.attributions("mapped-1").exists()


def test_runs_must_have_the_same_checkpoints(study: Params) -> None:
    paths.attribution("shuffled-1", "050").unlink()
    with pytest.raises(InputError, match="shuffled-1"):
        compare.run(study)
    assert not paths.COMPARE_TABLES.exists()
