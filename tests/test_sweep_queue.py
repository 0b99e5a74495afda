"""How a sweep's parts read and write: Hydra's values, the time left, what is shared, workers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from circuitdrift.sweeps.display import Remaining
from circuitdrift.sweeps.dvc_queue import hydra
from circuitdrift.sweeps.plan import load_sweep
from circuitdrift.sweeps.runner import workers_that_fit
from circuitdrift.sweeps.shared import first_of_each
from conftest import ROOT


@pytest.mark.parametrize(
    "value",
    [
        1,
        0.84,
        2e-5,
        True,
        None,
        "answer",
        "dir:/a b/c",
        "it's, [odd]=${x}",
        "back\\slash",
        "a\\'b\\",
        [0, 1],
        ["mapped", "shuffled"],
        [0.25, 1.0],
    ],
)
def test_hydra_reads_back_every_value(value: Any) -> None:
    (override,) = OverridesParser.create().parse_overrides([f"key={hydra(value)}"])
    read = override.value()
    if isinstance(read, list):
        read = [getattr(item, "text", item) for item in read]
    assert getattr(read, "text", read) == value


def test_the_time_left_follows_from_what_finished_since_the_start() -> None:
    clock = Remaining()
    assert clock.seconds_left(finished=3, n_open=6, now=100.0) is None
    assert clock.seconds_left(finished=3, n_open=6, now=150.0) is None
    assert clock.seconds_left(finished=5, n_open=4, now=200.0) == 200.0


def test_shared_stages_run_once_for_equal_params(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("data/constraints.yaml", "params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    arms = "{a: {product: {train.epochs: [1, 2], attribution.feature_nodes: [8, 16]}}}"
    file = f"every: {{}}\nmemory_gb: 1\narms: {arms}\n"
    (tmp_path / "sweep.yaml").write_text(file, encoding="utf-8")
    members = load_sweep(tmp_path).members

    def names(missing: int, done: int) -> list[str]:
        found = first_of_each(tmp_path, members[missing:], members[:done])
        return [member.name for member in found]

    assert names(0, 0) == ["feature_nodes-8-epochs-1", "feature_nodes-16-epochs-1"]
    assert names(1, 1) == ["feature_nodes-16-epochs-1"]
    assert names(2, 2) == []


def test_as_many_workers_as_the_cores_hold_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = load_sweep(ROOT)

    class Memory:
        available = 20e9

    monkeypatch.setattr("psutil.virtual_memory", Memory)
    for cores, workers in ((1, 1), (2, 2), (8, 3)):  # three times 6 GB are there
        monkeypatch.setattr("os.sched_getaffinity", lambda _, n=cores: set(range(n)))
        assert workers_that_fit(sweep) == workers
    Memory.available = 1e9
    assert workers_that_fit(sweep) == 1
