"""A remote that is no directory: objects are downloaded to be hashed, uploaded to mend it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from dvc_data.hashfile.db import get_odb
from dvc_objects.fs.memory import MemoryFileSystem

from circuitdrift.integrity.hashing import untracked
from circuitdrift.integrity.objects import Copy, State
from circuitdrift.integrity.remote import Remote, fetched_bytes, remote_copies
from small_pipeline import md5

OIDS = tuple(md5(text) for text in ("one", "two", "three"))
ONE, TWO, THREE = OIDS
PASSWORD = "a-password"


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Remote]:
    """Holds the first object, the second with other bytes, and not the third."""
    fs = MemoryFileSystem()
    remote = Remote(get_odb(fs, f"/{uuid4()}/files/md5", hash_name="md5"))
    for oid, text in ((ONE, "one"), (TWO, "other")):
        (tmp_path / "source").write_text(text)
        remote.put(tmp_path / "source", oid)
    yield remote
    fs.fs.store.clear()


def copies(remote: Remote, scratch: Path, *, rehash: bool) -> dict[str, Copy]:
    found = remote_copies(remote, OIDS, scratch, untracked, rehash=rehash)
    return {copy.oid: copy for copy in found}


def test_it_is_asked_without_a_download(remote: Remote, tmp_path: Path) -> None:
    assert not remote.is_directory
    found = copies(remote, tmp_path / "not made", rehash=False)
    assert [found[oid].state for oid in OIDS] == [State.UNREAD, State.UNREAD, State.MISSING]
    assert not (tmp_path / "not made").exists()


def test_its_address_is_shown_without_a_password(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As WebDAV's file system tells an address.
    def told(path: str) -> str:
        return f"https://alice:{PASSWORD}@example.org{path}"

    monkeypatch.setattr(remote.odb.fs, "unstrip_protocol", told, raising=False)
    assert remote.shown(ONE).startswith("https://example.org/")


def test_its_objects_are_downloaded_hashed_and_removed(remote: Remote, tmp_path: Path) -> None:
    found = copies(remote, tmp_path / "scratch", rehash=True)
    assert [found[oid].state for oid in OIDS] == [State.INTACT, State.CORRUPT, State.MISSING]
    assert found[TWO].detail == f"MD5 {md5('other')}"
    assert f"{TWO[:2]}/{TWO[2:]}" in found[TWO].path
    assert list((tmp_path / "scratch").iterdir()) == []
    assert copies(remote, tmp_path, rehash=False)[TWO].state is State.UNREAD  # nothing was deleted


def test_a_bad_object_is_replaced_by_an_upload(remote: Remote, tmp_path: Path) -> None:
    (tmp_path / "intact").write_text("two")
    remote.put(tmp_path / "intact", TWO)
    assert copies(remote, tmp_path / "scratch", rehash=True)[TWO].state is State.INTACT


def test_what_breaks_off_in_a_download_is_said(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class LostError(Exception):
        """An error as only this kind of remote raises it."""

    def break_off(*_args: object, **_options: object) -> None:
        raise LostError("connection lost")

    monkeypatch.setattr(remote.odb.fs, "get_file", break_off)
    found = copies(remote, tmp_path / "scratch", rehash=True)
    assert (found[ONE].state, found[ONE].detail) == (
        State.UNREADABLE,
        "LostError: connection lost",
    )
    assert fetched_bytes(remote, ONE, tmp_path) is None


def test_what_breaks_off_in_asking_is_said(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, **_options: object) -> None:
        raise PermissionError(f"no right to ask for {path}")

    monkeypatch.setattr(remote.odb.fs.fs, "info", refuse)
    found = copies(remote, tmp_path / "scratch", rehash=True)
    assert {copy.state for copy in found.values()} == {State.UNREADABLE}
    assert "PermissionError: no right to ask" in found[THREE].detail


def test_a_small_object_is_read(remote: Remote, tmp_path: Path) -> None:
    assert fetched_bytes(remote, ONE, tmp_path) == b"one"
    assert fetched_bytes(remote, THREE, tmp_path) is None
