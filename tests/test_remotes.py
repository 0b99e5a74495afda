"""Artifacts pushed to real servers and pulled elsewhere, by the commands of docs/remotes.md."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers import SERVERS, Server
from small_study import MADE, Study, make_study

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow
DVC = "import sys, json, dvc.cli; sys.exit(max(map(dvc.cli.main, json.loads(sys.argv[1]))))"
REMOTE = "['remote \"storage\"']\nurl = nowhere\nverify = true\n"
CONFIG = f"[core]\nno_scm = true\nremote = storage\n{REMOTE}"
VERIFY = "from circuitdrift.cli import app; app(['verify', '--remote'])"


def run(root: Path, server: Server | None, code: str, *arguments: str) -> tuple[int, str]:
    """Exit status and output of Python code in a study, with no settings of this machine."""
    home = root.parent / "home"
    settings = {f"DVC_{name}_DIR": str(home / name) for name in ("SITE_CACHE", "GLOBAL_CONFIG")}
    settings |= {"DVC_NO_ANALYTICS": "1", "HOME": str(home), "PYTHONPATH": str(ROOT / "src")}
    settings |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_MAX_ATTEMPTS": "1"}
    environment = {**os.environ, **settings, **(server.environment if server else {})}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def dvc(root: Path, server: Server | None, *commands: str) -> tuple[int, str]:
    """Several commands of DVC in one process, which takes a second to start."""
    return run(root, server, DVC, json.dumps([shlex.split(command) for command in commands]))


def recipe(section: str, server: Server) -> list[str]:
    """The commands of a section of docs/remotes.md, with the example's names replaced."""
    page = (ROOT / "docs/remotes.md").read_text(encoding="utf-8")
    (text,) = re.findall(rf"^## {section}\n(.+?)(?=^## )", page, re.MULTILINE | re.DOTALL)
    commands = "\n".join(re.findall(r"^\$ dvc (.+)$", text, re.MULTILINE))
    for example, here in server.placeholders.items():
        assert example in commands
        commands = commands.replace(example, here)
    return commands.splitlines()


Pushed = tuple[Study, Server]
KEPT = shutil.ignore_patterns("cache", "made", "tmp")


@pytest.fixture(scope="module", params=SERVERS)
def pushed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pushed]:
    try:
        with SERVERS[request.param](tmp_path_factory.mktemp("served")) as server:
            study = make_study(tmp_path_factory.mktemp("pushing") / "study", MADE)
            (study.root / ".dvc/config").write_text(CONFIG)
            status, output = dvc(study.root, server, *recipe(request.param, server), "push")
            assert status == 0, output
            yield study, server
    except (ImportError, FileNotFoundError) as error:
        if os.environ.get("CI") or os.environ.get("CIRCUIT_DRIFT_REQUIRE_SERVERS"):
            raise
        pytest.skip(f"NOT TESTED, no server for {request.param}: {error}")


def test_what_was_pushed_is_pulled_elsewhere_and_is_sound(pushed: Pushed, tmp_path: Path) -> None:
    study, server = pushed
    root = shutil.copytree(study.root, tmp_path / "study", ignore=KEPT)
    status, output = dvc(root, server, "pull")
    assert status == 0, output
    assert {name: (root / "made" / name).read_bytes() for name in MADE} == MADE
    status, output = run(root, server, VERIFY)
    assert status == 0, output


def test_a_damaged_object_is_neither_pulled_nor_overlooked(pushed: Pushed, tmp_path: Path) -> None:
    study, server = pushed
    name = study.object(MADE["table.csv"], "").relative_to(study.root).as_posix()
    root = shutil.copytree(study.root, tmp_path / "study", ignore=KEPT)
    server.write(name, b"a,b\n1,3\n")
    try:
        pulled, output = dvc(root, server, "pull")
        verified, told = run(study.root, server, VERIFY)
    finally:
        server.write(name, MADE["table.csv"])
    assert pulled != 0, output
    assert not (root / "made/table.csv").exists()
    assert verified == 1
    (line,) = (line for line in told.splitlines() if line.startswith("remote: "))
    assert name.rpartition("/")[2] in line


@pytest.mark.parametrize(
    "url",
    [
        "/nowhere/circuit-drift",
        "s3://my-bucket/circuit-drift\n    endpointurl = http://127.0.0.1:9",
        "ssh://127.0.0.1:9/circuit-drift",
        "webdav://127.0.0.1:9/circuit-drift\n    user = alice\n    password = a-secret",
    ],
)
def test_a_remote_that_does_not_answer_is_named_in_a_line(tmp_path: Path, url: str) -> None:
    study = make_study(tmp_path / "study", MADE)
    config = f"[core]\n    remote = far\n['remote \"far\"']\n    url = {url}\n"
    (study.root / ".dvc/config.local").write_text(config)
    status, output = run(study.root, None, VERIFY)
    assert status == 1, output
    (line,) = (line for line in output.splitlines() if line.startswith("remote: "))
    assert "remote: far cannot be read" in line
    assert "Traceback" not in output
    assert "a-secret" not in output
