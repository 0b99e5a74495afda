"""What others give is never run or unpickled, and no file that git keeps holds a credential."""

from __future__ import annotations

import pickle
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from circuitdrift.circuits.files import load_circuits
from circuitdrift.core.errors import InputError
from circuitdrift.core.files import read_json, write_json
from circuitdrift.data.constraints import load_constraints
from circuitdrift.importing.sources import import_model
from circuitdrift.models.loading import load_model
from circuitdrift.models.lora import WEIGHTS_FILE, adapted
from circuitdrift.params import Base

ROOT = Path(__file__).resolve().parents[1]
# What no code of ours may say, each with an example.
UNSAFE = {
    r"(?m)^\s*(import|from) (c?_?[pP]ickle|cloudpickle|dill|joblib|marshal)\b": "import pickle",
    r"\b(torch\.load|read_pickle|Graph\.from_pt)\(": "torch.load(path, weights_only=True)",
    r"(?<![\w.])(eval|exec|compile)\(|\bos\.(system|popen)\(": "eval(text)",
    r"\b(allow_pickle|shell|trust_remote_code)=(?!False)": "subprocess.run(text, shell=True)",
    r"\bYAML\((?!typ=\"safe\"|\))": "YAML(typ='unsafe').load(path)",
    r"\bAuto\w+\.from_(pretrained|config)\((?![^)]*trust_remote_code)": "AutoModel.from_config(it)",
}
# Written so that this file does not find itself.
CREDENTIALS = {
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b": "key = AKIA" + "ABCDEFGHIJKLMNOP",
    r"(?i)aws_secret_access_key\s*[=:]\s*\S{20}": "aws_secret_access_key" + "=" + "x" * 40,
    r"-----BEGIN [A-Z ]*PRIVATE [K]EY-----": "-----BEGIN OPENSSH " + "PRIVATE KEY-----",
    r"\bhf_[A-Za-z0-9]{30,}\b": "token: hf_" + "a" * 34,
    r"\bgh[pousr]_[A-Za-z0-9]{36}\b|\bgithub_pat_\w{60,}": "ghp_" + "a" * 36,
    r"\bpypi-[A-Za-z0-9_-]{50,}": "pypi-" + "A" * 60,
    r"\b[a-z][a-z0-9+.-]*://[^\s/:@'\"]+:[^\s/@'\"{}]+@": "https://me:"
    + "secret@example.org/store",
}


def found(patterns: dict[str, str], names: list[str]) -> set[tuple[str, str]]:
    texts = {name: (ROOT / name).read_text("utf-8", "replace") for name in names}
    return {(name, each) for name in names for each in patterns if re.search(each, texts[name])}


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    names = [name for name in listed.stdout.decode().split("\0") if (ROOT / name).is_file()]
    assert {"src/run.py", "dvc.lock", ".dvc/config"} <= set(names)
    return names


def test_no_code_unpickles_or_runs_what_it_reads(tracked: list[str]) -> None:
    code = [name for name in tracked if re.match(r"(src|benchmarks)/.*\.py$", name)]
    assert found(UNSAFE, code) == set()


def test_no_tracked_file_holds_a_credential(tracked: list[str]) -> None:
    assert found(CREDENTIALS, tracked) == set()


@pytest.mark.parametrize(("pattern", "example"), [*UNSAFE.items(), *CREDENTIALS.items()])
def test_what_is_looked_for_would_be_found(pattern: str, example: str) -> None:
    assert re.search(pattern, example)


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


@pytest.fixture
def payload(tmp_path: Path) -> Iterator[bytes]:
    """A pickle that nothing may load."""
    yield pickle.dumps(Payload(tmp_path / "it ran"))
    assert not (tmp_path / "it ran").exists()


@pytest.fixture
def model(tiny_base: Path, tmp_path: Path) -> Path:
    """A directory of somebody else's, as `base.directory` names it."""
    return Path(shutil.copytree(tiny_base, tmp_path / "model"))


def pickle_of_the_name(model: Path, payload: bytes) -> None:
    (model / "model.safetensors").write_bytes(payload)


def pickle_as_a_shard(model: Path, payload: bytes) -> None:
    """An index of shards may name a pickle, though the directory holds safetensors too."""
    weights = list(load_model(model).state_dict())
    (model / "model.safetensors").rename(model / "other.safetensors")
    (model / "pytorch_model.bin").write_bytes(payload)
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, "pytorch_model.bin")}
    write_json(model / "model.safetensors.index.json", index)


@pytest.mark.parametrize("put", [pickle_of_the_name, pickle_as_a_shard])
def test_a_pickle_in_a_base_model_is_refused(
    put: Callable[[Path, bytes], None], model: Path, tmp_path: Path, payload: bytes
) -> None:
    put(model, payload)
    (tmp_path / "imported").mkdir()
    with pytest.raises(InputError, match=r"base.directory"):
        import_model(Base(model="directory", directory=str(model)), tmp_path / "imported")


def test_code_beside_a_known_model_is_not_run(model: Path, tmp_path: Path) -> None:
    (model / "foreign.py").write_text(f"open({str(tmp_path / 'it ran')!r}, 'w')")
    code = dict.fromkeys(("AutoConfig", "AutoModelForCausalLM"), "foreign.Thing")
    write_json(model / "config.json", {**read_json(model / "config.json"), "auto_map": code})
    import_model(Base(model="directory", directory=str(model)), tmp_path)
    assert not (tmp_path / "it ran").exists()


def test_a_pickle_of_circuits_is_refused(tmp_path: Path, payload: bytes) -> None:
    (tmp_path / "100.safetensors").write_bytes(payload)
    with pytest.raises(SafetensorError):
        load_circuits(tmp_path / "100.safetensors")


def test_a_pickled_adapter_is_refused(tiny_base: Path, tmp_path: Path, payload: bytes) -> None:
    write_json(tmp_path / "adapter_config.json", {"peft_type": "LORA", "r": 2})
    (tmp_path / "adapter_model.bin").write_bytes(payload)
    refused = pytest.raises(InputError, match=f"no {WEIGHTS_FILE}")
    with refused, adapted(load_model(tiny_base), tmp_path):
        pass


@pytest.mark.parametrize("tag", ["!!python/object/apply:pathlib.Path.touch", "!run"])
def test_object_tags_in_the_constraints_are_refused(tag: str, tmp_path: Path) -> None:
    path = Path(shutil.copy(ROOT / "data/constraints.yaml", tmp_path))
    with path.open("a", encoding="utf-8") as file:
        file.write(f"\nharmless: {tag} [{tmp_path / 'it ran'}]\n")
    with pytest.raises(InputError, match="no object tags"):
        load_constraints(path)
    assert not (tmp_path / "it ran").exists()
