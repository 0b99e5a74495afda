"""What ``circuitdrift verify --repair`` brings back, from where, and what it leaves alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from dvc.exceptions import DvcException

from circuitdrift.integrity.expected import Needed
from circuitdrift.integrity.listings import listing_oid
from circuitdrift.integrity.objects import Area, Copy, State
from circuitdrift.integrity.pipeline import Out
from circuitdrift.integrity.repair import Owners, Step, copy_findings, plan
from circuitdrift.integrity.verification import repair, verify
from circuitdrift.storage.remote import writing
from small_pipeline import FIGURES, MADE, REPORT, Small, make_small, md5, md5s, overwrite, write

TABLE = md5(MADE["table.csv"])
LINES = md5(MADE["deep/lines.jsonl"])
LISTING = listing_oid(md5s(MADE))


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Small:
    small = make_small(tmp_path / "a study", monkeypatch)
    small.configure_remote()
    return small


def quarantined(small: Small) -> dict[str, bytes]:
    directory = small.root / ".dvc/tmp/quarantine"
    return {path.name: path.read_bytes() for path in directory.glob("*")}


def corrupt_cache(small: Small) -> None:
    overwrite(small.cached(TABLE), b"other")


def corrupt_cache_and_workspace(small: Small) -> None:
    corrupt_cache(small)
    overwrite(small.root / "made/table.csv", b"mine")


def corrupt_listing_and_a_file(small: Small) -> None:
    overwrite(small.cached(LISTING), b"[]")
    overwrite(small.root / "made/table.csv", b"mine")


def corrupt_listing_everywhere(small: Small) -> None:
    overwrite(small.cached(LISTING), b"[]")
    overwrite(small.stored(LISTING), b"[]")


def lose_the_cache(small: Small) -> None:
    shutil.rmtree(small.root / ".dvc/cache")


def lose_the_workspace(small: Small) -> None:
    for name in ("made", "figures"):
        shutil.rmtree(small.root / name)
    (small.root / "report.csv").unlink()


def lose_cache_and_workspace(small: Small) -> None:
    lose_the_cache(small)
    lose_the_workspace(small)


def swap_two(small: Small) -> None:
    for one, other in ((small.cached(TABLE), small.cached(LINES)),):
        first, second = one.read_bytes(), other.read_bytes()
        overwrite(one, second)
        overwrite(other, first)


def corrupt_the_remote(small: Small) -> None:
    overwrite(small.stored(TABLE), b"other")
    small.stored(LINES).unlink()


def corrupt_what_git_keeps(small: Small) -> None:
    overwrite(small.root / "report.csv", b"other")
    overwrite(small.root / "figures/two.json", b"[]")


def put_directories_in_files_places(small: Small) -> None:
    for path in (small.root / "report.csv", small.cached(TABLE)):
        path.unlink()
        path.mkdir()


@pytest.mark.parametrize(
    "damage",
    [
        corrupt_cache,
        corrupt_cache_and_workspace,
        corrupt_listing_and_a_file,
        corrupt_listing_everywhere,
        lose_the_cache,
        lose_the_workspace,
        lose_cache_and_workspace,
        swap_two,
        corrupt_the_remote,
        corrupt_what_git_keeps,
        put_directories_in_files_places,
    ],
)
def test_a_repair_brings_back_the_same_bytes(
    small: Small, damage: Callable[[Small], object]
) -> None:
    before = small.bytes_of_all()
    damage(small)
    assert not verify(small.open(), rehash_remote=True).sound
    report = repair(small.open(), rehash_remote=True)
    assert report.sound, (report.findings, report.lost)
    assert report.restored
    assert small.bytes_of_all() == before
    assert verify(small.open(), rehash_remote=True).sound
    assert small.cached(TABLE).stat().st_mode & 0o777 == 0o444


def test_a_remote_that_was_not_read_is_read_where_it_is_the_only_copy(small: Small) -> None:
    corrupt_cache_and_workspace(small)
    report = repair(small.open())
    assert report.sound
    (line,) = [line for line in report.restored if line.startswith(".dvc/cache")]
    assert ": brought back from remote; what stood there is now " in line


def test_what_stood_in_the_workspace_is_kept(small: Small) -> None:
    overwrite(small.root / "made/table.csv", b"somebody's work")
    report = repair(small.open())
    assert report.restored == (
        "made/table.csv: brought back from cache; what stood there is now"
        f" .dvc/tmp/quarantine/{TABLE}-1",
    )
    overwrite(small.root / "made/table.csv", b"more of it")
    repair(small.open())
    assert quarantined(small) == {
        f"{TABLE}-1": b"somebody's work",
        f"{TABLE}-2": b"more of it",
    }


def test_the_only_copy_of_an_object_survives_in_the_place_of_another(small: Small) -> None:
    swap_two(small)
    for path in (small.root / "made/table.csv", small.stored(TABLE), small.stored(LINES)):
        path.unlink()
    report = repair(small.open())
    assert not report.sound
    assert small.cached(LINES).read_bytes() == MADE["deep/lines.jsonl"].encode()
    assert MADE["table.csv"].encode() in quarantined(small).values()


def test_what_stood_in_the_remote_is_kept(small: Small) -> None:
    overwrite(small.stored(TABLE), b"somebody's bytes")
    report = repair(small.open(), rehash_remote=True)
    assert report.sound
    assert quarantined(small) == {f"{TABLE}-1": b"somebody's bytes"}


def test_an_object_without_another_copy_is_moved_aside_and_not_deleted(small: Small) -> None:
    corrupt_cache_and_workspace(small)
    overwrite(small.stored(TABLE), b"corrupted in the remote")
    report = repair(small.open())
    assert not report.sound
    assert quarantined(small) == {f"{TABLE}-1": b"other"}
    assert not small.cached(TABLE).exists()
    assert (small.root / "made/table.csv").read_bytes() == b"mine"
    assert small.stored(TABLE).read_bytes() == b"corrupted in the remote"
    lost = {finding.area: finding for finding in report.lost}
    assert set(lost) == {Area.CACHE, Area.WORKSPACE}
    assert f"moved to .dvc/tmp/quarantine/{TABLE}-1" in lost[Area.CACHE].wrong
    assert "remote: OtherBytesError" in lost[Area.CACHE].wrong
    assert lost[Area.CACHE].remedy == (
        "`dvc repro --force --single-item make` makes made/table.csv anew"
    )


def test_an_older_object_is_moved_aside_where_the_remote_has_it_not(small: Small) -> None:
    for name in ("here alone", "pushed"):
        write(small.cached(md5(name)), b"corrupted")
    write(small.stored(md5("pushed")), b"pushed")
    report = repair(small.open())
    (lost,) = report.lost
    assert "dvc.lock does not name it" in lost.remedy
    assert report.findings == ()
    aside = {f"{md5(name)}-1": b"corrupted" for name in ("here alone", "pushed")}
    assert quarantined(small) == aside
    assert small.cached(md5("pushed")).read_bytes() == b"pushed"
    assert verify(small.open()).sound


def test_what_cannot_be_written_is_lost_and_nothing_else_is_touched(small: Small) -> None:
    shutil.rmtree(small.root / "figures")
    (small.root / "figures").write_text("in the way")
    overwrite(small.root / "report.csv", b"other")
    report = repair(small.open())
    assert {finding.path for finding in report.lost} == {f"figures/{name}" for name in FIGURES}
    assert (small.root / "figures").read_text() == "in the way"
    assert (small.root / "report.csv").read_text() == REPORT


def test_a_repair_waits_for_no_other_command(small: Small) -> None:
    corrupt_cache(small)
    with small.open().repo.lock, pytest.raises(DvcException, match="Unable to acquire lock"):
        repair(small.open())
    assert small.cached(TABLE).read_bytes() == b"other"


def test_a_repair_waits_for_no_running_stage(small: Small) -> None:
    overwrite(small.root / "made/table.csv", b"being written")
    with (
        writing([str(small.root / "made")], small.open().repo, "stage"),
        pytest.raises(DvcException, match="is busy"),
    ):
        repair(small.open())
    assert (small.root / "made/table.csv").read_bytes() == b"being written"


OUT = Out("made", LISTING, cached=True, stage="make")
NEED = Needed("made/table.csv", TABLE, OUT)
PATHS = {Area.CACHE: "the cache's", Area.WORKSPACE: "made/table.csv", Area.REMOTE: "the remote's"}


def copies(**states: State) -> list[Copy]:
    return [Copy(Area[area], PATHS[Area[area]], TABLE, state) for area, state in states.items()]


def steps(**states: State) -> dict[str, Step]:
    made = plan(copies(**states), Owners.of_needed([NEED]), [])
    return {step.copy.area.name: step for step in made}


def test_the_plan_takes_what_is_near_and_hashed_before_what_was_not_read() -> None:
    step = steps(REMOTE=State.UNREAD, WORKSPACE=State.INTACT, CACHE=State.CORRUPT)["CACHE"]
    assert [source.area for source in step.sources] == [Area.WORKSPACE, Area.REMOTE]


def test_the_plan_sets_aside_corrupted_objects_of_the_cache_alone() -> None:
    made = steps(REMOTE=State.CORRUPT, WORKSPACE=State.CORRUPT, CACHE=State.CORRUPT)
    assert [area for area, step in made.items() if step.set_aside] == ["CACHE"]
    assert not any(step.hopeful for step in made.values())
    assert not steps(CACHE=State.UNREADABLE)["CACHE"].set_aside
    assert not steps(CACHE=State.MISSING)["CACHE"].set_aside


def test_the_plan_does_nothing_about_what_is_intact() -> None:
    assert steps(REMOTE=State.UNREAD, WORKSPACE=State.INTACT, CACHE=State.INTACT) == {}


def test_a_finding_says_where_an_intact_copy_lies_or_that_there_is_none() -> None:
    lying = copies(WORKSPACE=State.INTACT, CACHE=State.CORRUPT)
    owners = Owners.of_needed([NEED])
    (finding,) = copy_findings(plan(lying, owners, []), owners.shares(lying))
    assert finding.path == "the cache's (made/table.csv)"
    assert finding.remedy == "`circuitdrift verify --repair` brings it back from workspace"
    lying = copies(WORKSPACE=State.MISSING)
    (finding,) = copy_findings(plan(lying, owners, []), owners.shares(lying))
    assert finding.path == "made/table.csv"
    assert "dvc repro --force --single-item make" in finding.remedy


def test_a_listing_is_written_from_what_it_lists() -> None:
    listing = Copy(Area.CACHE, "the listing", LISTING, State.MISSING)
    (step,) = plan([listing], Owners.of_needed([Needed("made/", LISTING, OUT)]), [LISTING])
    assert (step.sources, step.from_listing, step.hopeful) == ((), True, True)
