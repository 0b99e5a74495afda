"""The same bits under portable kernels, whichever processor computes."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from study import ROOT

from circuitdrift.core.kernels import PORTABLE, set_kernels
from circuitdrift.fingerprint import computed
from circuitdrift.params import Compute
from tiny_study import lay_out

# A processor of each vendor with AVX2 and no more.
CPUS = ("Haswell", "EPYC")
PARAMS = {
    "compute.threads": 2,
    "compute.kernels": "portable",
    "runs.conditions": ["mapped", "rotated-1"],
    "intervene.conditions": ["mapped", "rotated-1"],
}
STUDY = """
import os, sys
from pathlib import Path
from circuitdrift.core.kernels import set_kernels
from circuitdrift.params import load_params
os.chdir(sys.argv[1])
set_kernels(load_params(Path("params.yaml")).compute)
from tiny_study import run_stages
run_stages(*sys.argv[2:])
"""
# qemu 7.2 fails in AVX2's gathers, by which numpy sorts integers for pandas in the other stages: it
# ends, or rows come out in another order.
EMULATED = [
    "import_base",
    "make_dataset",
    "finetune",
    "evaluate",
    "attribute",
]


def emulator(cpu: str) -> list[str]:
    qemu = shutil.which("qemu-x86_64")
    if qemu is None:
        pytest.skip("qemu-x86_64 (Debian's qemu-user) is not installed")
    return [qemu, "-cpu", cpu]


def run_tiny_study(root: Path, *runner: str) -> dict[str, str]:
    """Hash of every file that a tiny study gives; the stages up to attribute run by ``runner``."""
    lay_out(root, **PARAMS)
    folders = (ROOT / name for name in ("src", "tests", "benchmarks"))
    variables = {"PYTHONPATH": os.pathsep.join(map(str, folders)), "OMP_WAIT_POLICY": "passive"}
    study = [sys.executable, "-c", STUDY, str(root)]
    for command in ([*runner, *study, *EMULATED], [*study, "compare", "intervene", "report"]):
        subprocess.run(command, env={**os.environ, **variables}, check=True)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {
        path.relative_to(root).as_posix(): hashlib.md5(path.read_bytes()).hexdigest()
        for path in files
    }


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return run_tiny_study(tmp_path_factory.mktemp("here") / "study")


@pytest.mark.emulated
@pytest.mark.parametrize("cpu", CPUS)
def test_the_same_bytes_on(cpu: str, here: dict[str, str], tmp_path: Path) -> None:
    """The fingerprint has products as large as the real model's, the tiny study all the rest."""
    assert computed("portable", *emulator(cpu)) == computed("portable")
    there = run_tiny_study(tmp_path / "study", *emulator(cpu))
    assert [name for name in here if there.get(name) != here[name]] == []
    assert there.keys() == here.keys()


def test_native_kernels_leave_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PORTABLE:
        monkeypatch.delenv(name, raising=False)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "7")
    set_kernels(Compute(threads=3, kernels="native"))
    assert os.environ["MKL_NUM_THREADS"] == "3"
    assert not PORTABLE.keys() & os.environ.keys()
    monkeypatch.setattr(os, "environ", dict(os.environ))
    set_kernels(Compute(threads=3, kernels="portable"))
    assert os.environ.items() >= PORTABLE.items()


def test_nothing_that_computes_is_imported_before_the_kernels_are_set() -> None:
    code = (
        "import sys, pathlib; from circuitdrift.check import check_study;"
        f"check_study(pathlib.Path({str(ROOT)!r}));"
        "print({'numpy', 'torch', 'scipy', 'pandas'} & set(sys.modules))"
    )
    variables = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=variables, check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "set()"
