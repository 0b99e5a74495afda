"""``circuitdrift verify`` on a small study written by hand: what it sees, and what it does not."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.tree import Tree
from typer.testing import CliRunner

from circuitdrift.artifacts import write_json
from circuitdrift.cli import app
from circuitdrift.errors import InputError
from circuitdrift.integrity.assessment import Report
from circuitdrift.integrity.listings import listing_bytes, listing_oid, parse_listing
from circuitdrift.integrity.objects import Area
from circuitdrift.integrity.pipeline import open_study
from circuitdrift.integrity.verification import verify
from small_pipeline import FIGURES, MADE, Small, make_small, md5, md5s, overwrite, write

TABLE = md5(MADE["table.csv"])
LISTING = listing_oid(md5s(MADE))
PASSWORD = "a-password"


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Small:
    return make_small(tmp_path / "a study", monkeypatch)


def places(report: Report, area: Area) -> list[str]:
    return [finding.path for finding in report.findings if finding.area is area]


def test_a_sound_study_is_found_sound(small: Small) -> None:
    report = verify(small.open())
    assert report.findings == ()
    counts = {(line.area, line.what): line.count for line in report.checked}
    assert counts[Area.CACHE, "objects"] == 3
    assert counts[Area.WORKSPACE, "files of outputs"] == 5
    assert counts[Area.CONTENTS, "files read"] == 5
    assert [note for note in report.notes if "remote" in note] == [
        "no remote is configured: the cache is the only other copy"
    ]


def test_dvc_calls_a_corrupted_object_clean_and_verify_does_not(small: Small) -> None:
    overwrite(small.cached(TABLE), b"a,b\n1,3\n")
    status = subprocess.run(
        [sys.executable, "-m", "dvc", "status"],
        cwd=small.root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert status.stdout == "Data and pipelines are up to date.\n"
    report = verify(small.open())
    (finding,) = report.findings
    assert finding.area is Area.CACHE
    assert TABLE[2:] in finding.path
    assert "made/table.csv" in finding.path
    assert hashlib.md5(b"a,b\n1,3\n").hexdigest() in finding.wrong
    assert "verify --repair" in finding.remedy


def test_a_remote_is_asked_for_every_object_and_read_only_on_demand(small: Small) -> None:
    small.configure_remote()
    assert verify(small.open(), rehash_remote=True).sound
    overwrite(small.stored(TABLE), b"a,b\n1,3\n")
    assert verify(small.open()).sound
    (finding,) = verify(small.open(), rehash_remote=True).findings
    assert (finding.area, small.stored(TABLE).name in finding.path) == (Area.REMOTE, True)
    small.stored(TABLE).unlink()
    (finding,) = verify(small.open()).findings
    assert "is missing" in finding.wrong
    assert small.stored(LISTING).exists()  # nothing was deleted in looking


def test_looking_at_corrupted_objects_deletes_none(small: Small) -> None:
    """DVC's own check of an object that is not read-only deletes it where it is corrupted."""
    small.configure_remote()
    for path in (small.cached(TABLE), small.stored(TABLE)):
        overwrite(path, b"other")
        path.chmod(0o644)
    before = small.bytes_of_all()
    assert len(verify(small.open(), rehash_remote=True).findings) == 2
    assert small.bytes_of_all() == before


def test_a_remote_with_nothing_there_is_a_finding_where_it_is_to_be_hashed(small: Small) -> None:
    small.configure_remote()
    small.store.rename(small.store.with_name("moved"))
    report = verify(small.open())
    assert report.findings == ()
    assert any("the remote has nothing (nothing lies at" in note for note in report.notes)
    (finding,) = verify(small.open(), rehash_remote=True).findings
    assert (finding.area, finding.path) == (Area.REMOTE, "store")
    assert "cannot be asked: nothing lies at" in finding.wrong


def test_a_remote_of_a_kind_that_is_not_installed_is_a_finding(small: Small) -> None:
    config = "[core]\n    remote = far\n['remote \"far\"']\n    url = hdfs://nowhere/at/all\n"
    (small.root / ".dvc/config.local").write_text(config)
    (finding,) = verify(small.open()).findings
    assert finding.path == "far"
    assert "hdfs" in finding.wrong


def test_an_output_that_is_missing_altogether_is_one_finding(small: Small) -> None:
    for name in MADE:
        (small.root / "made" / name).unlink()
    report = verify(small.open())
    assert places(report, Area.WORKSPACE) == ["made"]
    assert "all of it is missing, 2 objects" in report.findings[0].wrong


def test_a_file_that_no_listing_names_is_a_finding(small: Small) -> None:
    write(small.root / "made/extra.csv", b"c\n1\n")
    write(small.root / "made/half.partial-7", b"")  # .dvcignore names it
    assert places(verify(small.open()), Area.WORKSPACE) == ["made/extra.csv"]


def test_a_directory_in_a_files_place_is_a_finding(small: Small) -> None:
    (small.root / "report.csv").unlink()
    write(small.root / "report.csv/inside", b"")
    report = verify(small.open())
    assert places(report, Area.WORKSPACE) == ["report.csv", "report.csv/inside"]


def test_without_any_copy_of_a_listing_its_directory_is_a_finding(small: Small) -> None:
    overwrite(small.cached(LISTING), b"[]")
    overwrite(small.root / "made/table.csv", b"a,b\n")
    report = verify(small.open())
    assert places(report, Area.WORKSPACE) == ["made"]
    assert "dvc repro --force --single-item make" in report.findings[0].remedy


def test_a_listing_is_found_in_git_where_git_keeps_the_directory(small: Small) -> None:
    overwrite(small.root / "figures/two.json", b"[]")
    assert places(verify(small.open()), Area.WORKSPACE) == ["figures/two.json"]


def test_an_old_listing_and_a_record_of_a_run_are_held_against_their_names(small: Small) -> None:
    old = small.root / ".dvc/cache" / LISTING[:2] / LISTING[2:]
    write(old, listing_bytes(md5s(MADE)))
    record = {"cmd": "python make.py", "outs": [{"path": "made", "md5": LISTING, "size": 3}]}
    without_size = {"cmd": "python make.py", "outs": [{"path": "made", "md5": LISTING}]}
    name = hashlib.sha256(json.dumps(without_size, sort_keys=True).encode()).hexdigest()
    run = small.root / ".dvc/cache/runs/ab/abc" / name
    run.parent.mkdir(parents=True)
    write_json(run, record)
    assert verify(small.open()).sound
    overwrite(old, b"[]")
    run.write_text(run.read_text().replace("make.py", "fake.py"))
    assert places(verify(small.open()), Area.CACHE) == [
        f".dvc/cache/{LISTING[:2]}/{LISTING[2:]} (made/)",
        f".dvc/cache/runs/ab/abc/{name}",
    ]
    run.write_bytes(b"\xff: [")
    assert len(places(verify(small.open()), Area.CACHE)) == 2


def test_a_listing_has_the_bytes_and_the_id_that_dvc_gives_it() -> None:
    files = {"b/ü.csv": "1" * 32, "a.json": "2" * 32, "b.csv": "3" * 32}
    tree = Tree()
    for path, value in files.items():
        tree.add(tuple(path.split("/")), None, HashInfo("md5", value))
    tree.digest()
    assert listing_bytes(files) == tree.as_bytes()
    assert listing_oid(files) == tree.oid
    assert parse_listing(listing_bytes(files), "somewhere") == files


@pytest.mark.parametrize(
    "content",
    [
        b'[{"md5": "1", "relpath": "../../.ssh/authorized_keys"}]',
        b'[{"md5": "1", "relpath": "/etc/passwd"}]',
        b'[{"relpath": "a"}]',
        b'{"relpath": "a"}',
        b"not JSON",
    ],
)
def test_a_listing_that_names_other_things_than_files_below_is_refused(content: bytes) -> None:
    with pytest.raises(InputError, match=r"the listing that dvc\.lock names"):
        parse_listing(content, "made")


def test_what_is_no_study_is_refused(tmp_path: Path, small: Small) -> None:
    with pytest.raises(InputError, match="not inside of a DVC repository"):
        open_study(tmp_path)
    with pytest.raises(InputError, match=r"lies in the DVC repository|does not exist"):
        open_study(small.root / "made")
    (small.root / "dvc.lock").write_text("stages: [")
    with pytest.raises(InputError, match=r"dvc\.lock"):
        open_study(small.root)


def test_the_command_prints_a_table_and_a_line_for_each_finding(small: Small) -> None:
    command = ["verify", "--root", str(small.root)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "workspace: files of outputs" in result.output
    overwrite(small.root / "figures/one.tsv", b"x\ty\n")
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert "wrong  workspace: figures/one.tsv holds other bytes" in result.output
    result = CliRunner().invoke(app, [*command, "--repair"])
    assert result.exit_code == 0, result.output
    assert "repaired  figures/one.tsv: brought back from git" in result.output
    assert (small.root / "figures/one.tsv").read_text() == FIGURES["one.tsv"]


def test_the_command_refuses_what_is_no_study(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["verify", "--root", str(tmp_path)])
    assert result.exit_code == 1
    assert "remedy:" in result.output


@pytest.mark.parametrize(
    "settings",
    [
        "url = ssh://127.0.0.1:9/far\n    keyfile = /nowhere/key",
        f"url = webdav://alice:{PASSWORD}@127.0.0.1:9/far",
    ],
)
def test_a_remote_that_cannot_be_asked_is_a_finding_without_its_password(
    small: Small, settings: str
) -> None:
    config = f"[core]\n    remote = far\n['remote \"far\"']\n    {settings}\n"
    (small.root / ".dvc/config.local").write_text(config)
    (finding,) = verify(small.open()).findings
    assert (finding.area, finding.path) == (Area.REMOTE, "far")
    assert "cannot be asked" in finding.wrong
    assert PASSWORD not in finding.wrong


def test_a_remote_that_is_not_configured_cannot_be_hashed(small: Small) -> None:
    (finding,) = verify(small.open(), rehash_remote=True).findings
    assert "no remote is configured" in finding.wrong


def test_where_git_cannot_say_what_is_committed_the_study_is_refused(small: Small) -> None:
    (small.root / ".git/index").write_bytes(b"not an index")
    with pytest.raises(InputError, match="which git may read"):
        verify(small.open())
