"""Artifacts pushed to real servers and pulled into a new clone, by the pages' own commands."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from servers import Server, UnavailableError
from servers.files import access
from servers.s3 import s3_server
from servers.ssh import ssh_server
from servers.webdav import webdav_server
from study_clone import ROOT, Clone, environment
from tiny_study import FirstRuns

KEPT_BY_DVC = ("models/base", "models/checkpoints", "data/dataset", "data/attributions")
UP_TO_DATE = "Data and pipelines are up to date."
ADAPTER = "models/checkpoints/mapped-0/050/adapter_model.safetensors"
CIRCUITS = "data/attributions/base/base.safetensors"
KINDS = ("folder", "s3", "ssh", "webdav")


@pytest.fixture(scope="module")
def study(first_runs: FirstRuns) -> Clone:
    """A finished study, committed. Not to be changed: copy it."""
    return first_runs.clone


def serve(kind: str, folder: Path, stack: ExitStack) -> Server:
    """A server of ``kind``; skips or, where servers are required, fails if it cannot be had."""
    try:
        if kind == "s3":
            return stack.enter_context(s3_server())
        if kind == "ssh":
            return stack.enter_context(ssh_server(folder))
        if kind == "webdav":
            return stack.enter_context(webdav_server(folder))
    except UnavailableError as error:
        if os.environ.get("CI") or os.environ.get("CIRCUIT_DRIFT_REQUIRE_SERVERS"):
            pytest.fail(f"no {kind} server: this needs {error}")
        pytest.skip(f"NOT TESTED, no {kind} server: this needs {error}")
    placeholders = {"/mnt/group/circuit-drift": str(folder)}
    return Server("local.md", placeholders, **access(folder))


def copied(study: Clone, root: Path) -> Clone:
    shutil.copytree(study.root, root, symlinks=True)
    return at(root)


def cloned(study: Clone, root: Path) -> Clone:
    """What a newcomer has: the commit, and nothing that DVC keeps."""
    study.do("git", "clone", "--quiet", str(study.root), str(root))
    return at(root)


def at(root: Path, **variables: str) -> Clone:
    own = {"PYTHONPATH": str(root / "src"), "COLUMNS": "300"}
    return Clone(root, {**environment(root.parent / f"{root.name} home"), **own, **variables})


def refused(clone: Clone, *command: str) -> str:
    """What ``command`` says as it fails, in words and not in a traceback."""
    process = clone.start(*command)
    output, _ = process.communicate()
    assert process.returncode == 1, output
    assert "Traceback" not in output
    return output


def dvc(clone: Clone, commands: list[list[str]]) -> None:
    """Give several commands to DVC, which takes a second to start, at once."""
    program = "import sys, json, dvc.cli; sys.exit(any(map(dvc.cli.main, json.loads(sys.argv[1]))))"
    clone.do("python", "-c", program, json.dumps([command[1:] for command in commands]))


def recipe(server: Server) -> list[list[str]]:
    """The commands of the server's page, with the example's names replaced."""
    text = (ROOT / "docs" / "remotes" / server.page).read_text(encoding="utf-8")
    commands = re.findall(r"^\$ (dvc remote .+)$", text, re.MULTILINE)
    for example, here in server.placeholders.items():
        assert any(example in command for command in commands), example
        commands = [command.replace(example, here) for command in commands]
    return [shlex.split(command) for command in commands]


def contents(clone: Clone) -> dict[str, str]:
    """MD5 of every file that DVC keeps in the workspace."""
    return {
        path.relative_to(clone.root).as_posix(): md5(path)
        for kept in KEPT_BY_DVC
        for path in sorted((clone.root / kept).rglob("*"))
        if path.is_file()
    }


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def object_name(oid: str) -> str:
    return f"files/md5/{oid[:2]}/{oid[2:]}"


def list_of(clone: Clone, stage: str, path: str) -> str:
    """The object that lists the files of a stage's output."""
    lock = YAML(typ="safe").load(clone.root / "dvc.lock")
    (oid,) = (out["md5"] for out in lock["stages"][stage]["outs"] if out["path"] == path)
    return object_name(oid)


@dataclass(frozen=True)
class Pushed:
    """A clone that has pushed its artifacts to a server."""

    clone: Clone
    server: Server

    def newcomer(self, root: Path) -> Clone:
        """A fresh clone that reaches the same remote."""
        clone = cloned(self.clone, root)
        clone.environment.update(self.server.environment)
        shutil.copy(self.clone.root / ".dvc/config.local", root / ".dvc/config.local")
        return clone


@pytest.fixture(scope="module", params=KINDS)
def pushed(
    request: pytest.FixtureRequest, study: Clone, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pushed]:
    with ExitStack() as stack:
        server = serve(request.param, tmp_path_factory.mktemp("served"), stack)
        clone = copied(study, tmp_path_factory.mktemp(request.param) / "clone")
        clone.environment.update(server.environment)
        dvc(clone, recipe(server))
        assert "artifacts" in clone.do("circuitdrift", "push")
        yield Pushed(clone, server)


def test_a_newcomer_pulls_everything_and_has_nothing_to_compute(
    pushed: Pushed, tmp_path: Path
) -> None:
    newcomer = pushed.newcomer(tmp_path / "newcomer")
    assert contents(newcomer) == {}
    assert "artifacts" in newcomer.do("circuitdrift", "pull")
    assert contents(newcomer) == contents(pushed.clone) != {}
    assert UP_TO_DATE in newcomer.do("dvc", "status")
    assert UP_TO_DATE in newcomer.do("dvc", "repro")
    assert newcomer.do("git", "status", "--porcelain") == ""


def test_what_is_damaged_or_missing_is_named_and_the_rest_is_pulled(
    pushed: Pushed, tmp_path: Path
) -> None:
    clone, server = pushed.clone, pushed.server
    damaged, missing = (object_name(md5(clone.root / path)) for path in (ADAPTER, CIRCUITS))
    list_ = list_of(clone, "make_dataset", "data/dataset")
    whole = server.read(damaged)
    server.write(damaged, bytes([whole[0] ^ 1]) + whole[1:])
    server.delete(missing)
    server.delete(list_)
    newcomer = pushed.newcomer(tmp_path / "newcomer")
    costs = newcomer.root / "reports/benchmarks/study.csv"
    costs.parent.mkdir(parents=True, exist_ok=True)
    costs.write_text("stage,wall_s,peak_gb\nattribute_base,600,1.0\nmake_dataset,4.2,0.1\n")

    output = refused(newcomer, "circuitdrift", "pull")
    lines = {line.split("│")[1].strip(): line for line in output.splitlines() if "│" in line}
    assert set(lines) == {"finetune@mapped-0", "attribute_base", "make_dataset"}
    assert "damaged in the remote" in lines["finetune@mapped-0"]
    assert damaged in lines["finetune@mapped-0"]
    for stage in ("attribute_base", "make_dataset"):
        assert "neither in the cache nor in the remote" in lines[stage]
    for stage, cost in (
        ("finetune@mapped-0", "time unknown"),
        ("attribute_base", "10 min"),
        ("make_dataset", "4 s"),
    ):
        assert cost in lines[stage]
    assert "about 10 min and 1 of unknown time" in output
    left_out = ("models/checkpoints/mapped-0/", "data/attributions/base/", "data/dataset/")
    assert contents(newcomer) == {
        name: value for name, value in contents(clone).items() if not name.startswith(left_out)
    }

    server.write(damaged, whole[:9])  # as a push that broke off may leave it
    clone.do("circuitdrift", "push")
    assert server.read(damaged) == whole
    for name in (missing, list_):
        assert server.read(name) == (clone.root / ".dvc/cache" / name).read_bytes()


def test_what_is_damaged_in_the_cache_is_not_put_in_place(study: Clone, tmp_path: Path) -> None:
    clone = copied(study, tmp_path / "clone")
    adapter, list_ = md5(clone.root / ADAPTER), list_of(clone, "make_dataset", "data/dataset")
    before = contents(clone)
    for name in (object_name(adapter), list_):
        damaged = clone.root / ".dvc/cache" / name
        damaged.chmod(0o644)
        damaged.write_bytes(damaged.read_bytes()[:-1])
        damaged.chmod(0o444)  # which DVC takes for whole
    for gone in ("models/checkpoints/mapped-0", "data/dataset"):
        shutil.rmtree(clone.root / gone)
    clone.do("dvc", "remote", "modify", "--local", "storage", "url", str(tmp_path / "empty"))
    (tmp_path / "empty").mkdir()
    output = refused(clone, "circuitdrift", "pull")
    lines = {line.split("│")[1].strip(): line for line in output.splitlines() if "│" in line}
    assert set(lines) == {"finetune@mapped-0", "make_dataset"}
    assert all("damaged in the cache" in line for line in lines.values())
    left_out = ("models/checkpoints/mapped-0/", "data/dataset/")
    assert contents(clone) == {
        name: value for name, value in before.items() if not name.startswith(left_out)
    }


UNREACHABLE = {
    "local.md": ("/nowhere/circuit-drift", "nothing at this address"),
    "s3.md": ("s3://my-bucket/circuit-drift", "Could not connect"),
    "ssh.md": ("ssh://127.0.0.1:9/circuit-drift", "Connect"),
    "webdav.md": ("webdav://127.0.0.1:9/circuit-drift", "refused"),
}


@pytest.mark.parametrize("page", UNREACHABLE)
def test_a_remote_that_does_not_answer_is_named(study: Clone, tmp_path: Path, page: str) -> None:
    url, words = UNREACHABLE[page]
    newcomer = cloned(study, tmp_path / "newcomer")
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    newcomer.environment.update(keys, AWS_MAX_ATTEMPTS="1")
    endpoint = "endpointurl = http://127.0.0.1:9" if page == "s3.md" else ""
    config = f"['remote \"storage\"']\nurl = {url}\n{endpoint}\n"
    (newcomer.root / ".dvc/config.local").write_text(config, encoding="utf-8")
    output = refused(newcomer, "circuitdrift", "pull")
    assert f"remote storage ({url})" in output
    assert words in output
    assert "docs/remotes" in output
    assert contents(newcomer) == {}


REJECTED = {"s3": "Unable to locate credentials", "ssh": "Permission denied", "webdav": "401"}


@pytest.mark.parametrize("pushed", REJECTED, indirect=True)
def test_a_remote_that_lets_nobody_in_is_named(pushed: Pushed, tmp_path: Path) -> None:
    page = pushed.server.page
    words = REJECTED[page.removesuffix(".md")]
    newcomer = pushed.newcomer(tmp_path / "newcomer")
    if page == "ssh.md":
        key = tmp_path / "another key"
        newcomer.do("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
        newcomer.do("dvc", "remote", "modify", "--local", "shared", "keyfile", str(key))
    if page == "webdav.md":
        newcomer.do("dvc", "remote", "modify", "--local", "shared", "password", "wrong")
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        newcomer.environment.pop(variable, None)
    output = refused(newcomer, "circuitdrift", "pull")
    assert words in output
    assert f"docs/remotes/{page}" in output
    assert contents(newcomer) == {}
