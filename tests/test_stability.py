"""Last bits decide nothing: no verdict, no choice and no row's place."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from circuitdrift.circuits.circuit import Circuit
from circuitdrift.circuits.files import save_circuits
from circuitdrift.core import paths
from circuitdrift.core.files import read_json
from circuitdrift.stages import attribute
from tiny_study import run_stages

SHARE = 1e-5  # by which effects differ between kinds of processors


def test_effects_a_little_otherwise_give_the_same_verdicts_and_rows(
    tiny_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)

    def save_perturbed(path: Path, circuits: Sequence[Circuit]) -> None:
        def perturbed(values: np.ndarray) -> np.ndarray:
            return values * (1 + SHARE * generator.uniform(-1, 1, values.shape)).astype(np.float32)

        save_circuits(path, [replace(one, effects=perturbed(one.effects)) for one in circuits])

    study = Path(shutil.copytree(tiny_study, tmp_path / "study"))
    monkeypatch.setattr(attribute, "save_circuits", save_perturbed)
    monkeypatch.chdir(study)
    run_stages("attribute", "compare", "intervene", "report")

    one, other = (read_json(root / paths.VERDICTS) for root in (tiny_study, study))
    for question in ("rq1", "rq2"):
        assert one[question]["verdict"] == other[question]["verdict"]
    names = sorted(path.relative_to(study) for path in (study / "reports").rglob("*.csv"))
    unequal = 0
    for name in names:
        a, b = (
            pd.read_csv(root / name, keep_default_na=False, na_values=[""])
            for root in (tiny_study, study)
        )
        keys = a.select_dtypes(exclude="float").columns
        pd.testing.assert_frame_equal(a[keys], b[keys], obj=str(name))
        unequal += not a.equals(b)
    assert unequal > 3, "the perturbation has to reach the tables"
