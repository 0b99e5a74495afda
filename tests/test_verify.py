"""``circuitdrift verify`` on a small study written by hand: what it sees, what it brings back."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save
from typer.testing import CliRunner

from circuitdrift.cli import app
from circuitdrift.core.errors import InputError
from circuitdrift.verify import Finding, verify_study
from small_study import LORA, MADE, PIPELINE, WEIGHTS, Files, Study, make_study, md5, write


def overwrite(path: Path, content: bytes) -> None:
    """Change bytes as a disk may: the file keeps its mode and its time."""
    before = path.stat()
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(before.st_mode)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def findings(study: Study, **options: bool) -> list[Finding]:
    return verify_study(study.root, **options)[1]


def places(study: Study, area: str, **options: bool) -> list[str]:
    return [each.path for each in findings(study, **options) if each.area == area]


@pytest.fixture
def new_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Files], Study]:
    """Makes a study that no DVC settings of this machine reach."""
    for name in ("SITE_CACHE", "GLOBAL_CONFIG", "SYSTEM_CONFIG"):
        monkeypatch.setenv(f"DVC_{name}_DIR", str(tmp_path / name))
    return lambda made: make_study(tmp_path / "a study", made)


@pytest.fixture
def study(new_study: Callable[[Files], Study]) -> Study:
    return new_study(MADE)


def contents(study: Study) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in study.files() if path.parent.name != "tmp"}


def listing(study: Study) -> Path:
    (path,) = (path for path in study.objects() if path.suffix == ".dir")
    return path


def add_remote(study: Study) -> None:
    """A folder that holds everything, the default remote."""
    shutil.copytree(study.root / ".dvc/cache", study.root / "../store")
    config = "[core]\n    remote = store\n['remote \"store\"']\n    url = ../../store\n"
    (study.root / ".dvc/config.local").write_text(config)


def quarantined(study: Study) -> list[bytes]:
    return [content for path, content in contents(study).items() if "quarantine" in path.parts]


def test_a_sound_study_is_sound_and_left_as_it_is(study: Study) -> None:
    before = contents(study)
    checked, found = verify_study(study.root)
    assert found == []
    assert (checked["cache"], checked["contents"]) == (len(study.objects()), len(MADE))
    assert contents(study) == before


KINDS = ("bit flip", "truncation", "missing", "extra", "swap")


def corrupt(kind: str, file: Path, other: Path, draw: random.Random) -> list[Path]:
    """Damage a file, or two; returns which."""
    content = file.read_bytes()
    place = draw.randrange(len(content))
    if kind == "bit flip":
        flipped = content[place] ^ (1 << draw.randrange(8))
        overwrite(file, content[:place] + bytes([flipped]) + content[place + 1 :])
    elif kind == "truncation":
        overwrite(file, content[:place])
    elif kind == "missing":
        file.unlink()
    elif kind == "extra":
        file = file.with_name(f"{draw.randrange(16**30):030x}{file.suffix}")
        file.write_bytes(b"{}")
    else:
        overwrite(file, other.read_bytes())
        overwrite(other, content)
        return [file, other]
    return [file]


def test_each_of_200_random_corruptions_is_caught(study: Study) -> None:
    draw, root = random.Random(0), study.root
    kept = [root / "made" / name for name in MADE]
    tracked = [root / name for name in ("figures/one.txt", "notes/one.txt", "notes/two.txt")]
    objects = study.objects()
    listings = [path for path in objects if path.suffix == ".dir"]
    for kind, area in [*product(KINDS, (kept, tracked, objects, listings))] * 10:
        file, before = draw.choice(area), contents(study)
        others = objects if file in objects else kept + tracked
        other = draw.choice([path for path in others if before[path] != before[file]])
        damaged = corrupt(kind, file, other, draw)
        told = "\n".join(finding.path for finding in findings(study))
        for path in damaged:
            top = path.relative_to(root).parts[0]  # git names the files in what it keeps
            name = top if top in ("figures", "notes") else f"{path.parent.name}/{path.name}"
            assert name in told, f"{kind} of {path}: {told}"
            path.unlink(missing_ok=True)
        for path in set(damaged) & before.keys():
            path.write_bytes(before[path])
            path.chmod(0o444 if path in objects else 0o644)
    assert findings(study) == []


def test_what_is_not_as_it_was_made_is_named(study: Study) -> None:
    overwrite(study.root / "made/table.csv", b"a,b\n1,3\n")
    (study.root / "made/lines.jsonl").unlink()
    write(study.root / "made", {"deep/extra.csv": b"", "half.partial-7": b""})
    named = ["made/deep/extra.csv", "made/lines.jsonl", "made/table.csv"]
    assert places(study, "workspace") == named
    (study.root / "params.yaml").write_text("size: 3\n")
    (study.root / "dvc.yaml").write_text(PIPELINE.replace("cp -R notes", "cp -RP notes"))
    overwrite(study.root / "code.py", b"print('mace')\n")
    named += ["code.py", "params.yaml", "tell"]
    assert sorted(places(study, "workspace")) == sorted(named)


WRONG_ADAPTERS = (
    save(WEIGHTS)[:-1],
    b"\xff" * 16,
    save(WEIGHTS | {f"{LORA}.lora_A.weight": np.ones((3, 8))}),
    save({name.replace("q_proj", "k_proj"): tensor for name, tensor in WEIGHTS.items()}),
    *(
        save(WEIGHTS | {f"{LORA}.lora_B.weight": np.full((4, 2), bad, dtype)})
        for bad, dtype in product([np.inf, -np.inf, np.nan], ["f2", "f4", "f8"])
    ),
)
BFLOAT16 = b'{"x":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
WRONG = [
    ("lines.jsonl", b'{"a": 1}\n{"a": \n'),
    ("table.csv", b"a,\xff\n"),
    ("adapter/adapter_config.json", b'{"r": 2'),
    ("weights.safetensors", len(BFLOAT16).to_bytes(8, "little") + BFLOAT16 + b"\x80\x3f\x80\x7f"),
    *(("adapter/adapter_model.safetensors", content) for content in WRONG_ADAPTERS),
]


@pytest.mark.parametrize(("name", "content"), WRONG)
def test_what_was_made_wrong_is_found_though_its_bytes_are_right(
    new_study: Callable[[Files], Study], name: str, content: bytes
) -> None:
    study = new_study(MADE | {name: content})
    found = findings(study)
    assert {finding.area for finding in found} == {"contents"}
    assert f"made/{name}" in {finding.path for finding in found}


def test_a_repair_takes_objects_from_files_and_files_from_objects(study: Study) -> None:
    before = contents(study)
    damaged = study.object(MADE["table.csv"])
    overwrite(damaged, b"a,b\n1,3\n")
    (finding,) = findings(study)
    assert (finding.area, damaged.name in finding.path) == ("cache", True)
    overwrite(study.root / "made/adapter/adapter_config.json", b"other")
    (study.root / "made/lines.jsonl").unlink()
    assert findings(study, repair=True) == []
    assert before.items() <= contents(study).items()
    assert sorted(quarantined(study)) == [b"a,b\n1,3\n", b"other"]
    listing(study).unlink()
    assert findings(study, repair=True) == []


def test_a_repair_brings_back_everything_from_the_remote(study: Study) -> None:
    add_remote(study)
    shutil.rmtree(study.root / ".dvc/cache")
    shutil.rmtree(study.root / "made")
    assert findings(study, repair=True, remote=True) == []
    assert (study.root / "made/table.csv").read_bytes() == MADE["table.csv"]


def test_a_repair_neither_deletes_nor_puts_damaged_bytes_in_place(study: Study) -> None:
    add_remote(study)
    table = study.root / "made/table.csv"
    for place in (
        table,
        study.object(MADE["table.csv"]),
        study.object(MADE["table.csv"], "../store"),
    ):
        overwrite(place, b"damaged")
    found = findings(study, repair=True)
    assert {finding.area for finding in found} == {"cache", "workspace"}
    assert all("made/table.csv" in finding.path for finding in found)
    assert table.read_bytes() == b"damaged"
    assert quarantined(study) == [b"damaged"]
    made = {name: (study.root / "made" / name).read_bytes() for name in MADE}
    assert made == {**MADE, "table.csv": b"damaged"}


def test_a_listing_that_names_files_outside_of_its_directory_leads_nowhere(study: Study) -> None:
    secret = study.root / "../secret"
    secret.write_text("mine")
    hostile = json.dumps([{"md5": md5(b"theirs"), "relpath": "../../secret"}]).encode()
    lock = (study.root / "dvc.lock").read_text()
    (study.root / "dvc.lock").write_text(
        lock.replace(md5(listing(study).read_bytes()), md5(hostile))
    )
    places = {
        study.object(b"theirs"): b"theirs",
        study.object(hostile).with_suffix(".dir"): hostile,
    }
    write(study.root, {str(path): content for path, content in places.items()})
    assert findings(study, repair=True) != []
    assert secret.read_text() == "mine"


def test_what_the_remote_lacks_or_holds_damaged_is_named(study: Study) -> None:
    assert places(study, "remote", remote=True) == ["none"]
    add_remote(study)
    assert findings(study, remote=True) == []
    before = contents(study)
    damaged, gone = (study.object(MADE[name], "../store") for name in ("table.csv", "lines.jsonl"))
    listed = study.object(listing(study).read_bytes(), "../store").with_suffix(".dir")
    overwrite(damaged, b"a,b\n1,3\n")
    overwrite(listed, b"[]")
    gone.unlink()
    named = {f"{path.parent.name}/{path.name}" for path in (damaged, gone, listed)}
    assert {path.split(" ")[0] for path in places(study, "remote", remote=True)} == named
    assert damaged.read_bytes() == b"a,b\n1,3\n"
    assert before.items() <= contents(study).items()
    shutil.rmtree(study.root / "../store")
    assert places(study, "remote", remote=True) == ["store"]


def test_what_is_no_study_is_refused(tmp_path: Path, study: Study) -> None:
    (study.root / "dvc.lock").write_text("stages: [")
    for root in (tmp_path, study.root / "made", study.root):
        with pytest.raises(InputError):
            verify_study(root)


def test_the_command_exits_with_0_only_if_all_holds(study: Study) -> None:
    command = ["verify", "--root", str(study.root)]
    overwrite(study.root / "made/table.csv", b"a,b\n1,3\n")
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert "made/table.csv" in result.output
    assert CliRunner().invoke(app, [*command, "--repair"]).exit_code == 0
    assert CliRunner().invoke(app, ["verify", "--root", "/"]).exit_code == 1
