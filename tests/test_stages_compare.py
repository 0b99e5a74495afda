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
    names = dict.fromkeys(("from", "to", "checkpoint_a", "checkpoint_b"), str)
    return pd.read_csv(paths.COMPARE_TABLES / f"{name}.csv", dtype=names)


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


def test_the_study_is_compared_word_by_word(
    tiny_study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_study)
    params = load_params(paths.PARAMS)
    prompts = load_circuits(paths.attribution(BASE, BASE)).prompts
    words = {prompt.word for prompt in prompts if prompt.role == "near"}
    controls = {prompt.id for prompt in prompts if prompt.role == "control"}
    drift = read("drift")
    assert set(drift["unit"]) == words | controls
    assert set(drift["run"]) == {run.name for run in params.runs.all}
    for run in params.runs.all:
        ways = 2 + 1 + (run.seed in params.nulls.seeds)
        assert (drift["run"] == run.name).sum() == len(words | controls) * ways
    assert drift["drift"].between(0, 1).all()
    consistency = read("consistency")
    n = len(params.runs.all)
    assert len(consistency) == len(words) * n * (n - 1) // 2
    contrast = read("contrast")
    assert set(contrast["word"]) <= words


def test_a_single_run_without_nulls_is_compared_all_the_same(study: Params) -> None:
    shutil.rmtree(paths.random_attribution("mapped-0", 0, "100").parent)
    compare.run(with_runs(study, ("mapped",), (0,)))
    assert set(read("drift")["change"]) == {"trained"}
    for name in ("between_runs", "consistency", "contrast"):
        assert list(read(name)) == compare.TABLES[name]
        assert read(name).empty
    # What other runs left there would otherwise be counted among the stage's inputs.
    assert not paths.attributions("mapped-1").exists()


def test_runs_must_have_the_same_checkpoints(study: Params) -> None:
    paths.attribution("rotated-1-1", "050").unlink()
    with pytest.raises(InputError, match="rotated-1-1"):
        compare.run(study)
    assert not paths.COMPARE_TABLES.exists()
