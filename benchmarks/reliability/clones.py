"""Temporary clones of the study, each in a world of its own: made, varied, run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

LOCK = "dvc.lock"
Settings = Mapping[str, Mapping[str, Any]]
"""Values of params.yaml by section and key."""

# The whole pipeline in well under a minute on one core.
TINY: Settings = {
    "compute": {"threads": 1},
    "runs": {"conditions": ["mapped", "shuffled"], "seeds": [0]},
    "base": {"model": "tiny"},
    "dataset": {"n_examples": 12},
    "train": {"epochs": 1, "checkpoints": [0.5, 1.0]},
    "attribution": {
        "discovery_prompts_per_word": 1,
        "evaluation_prompts_per_word": 1,
        "control_prompts": 2,
        "graph_control_prompts": 1,
        "feature_nodes": 16,
        "candidates_per_place": 8,
    },
    "compare": {"thresholds": [0.5, 0.9], "random_sets": 10},
    "validation": {
        "prompts_per_word": 1,
        "sizes": [0.01, 0.1, 1.0],
        "transfer_size": 0.1,
        "ranked_nodes": 4,
    },
    "statistics": {"bootstrap_samples": 10, "permutations": 10},
}
PROFILES: Mapping[str, Settings] = {"default": {}, "tiny": TINY}


@dataclass(frozen=True)
class World:
    """What surrounds a clone and must not matter.

    Attributes:
        folder: name of the clone's folder.
        hash_seed: Python's PYTHONHASHSEED, the order of sets of text.
        zone: the time zone, as POSIX writes it, so that none needs to be installed.
        locale: LC_ALL, one of those that every machine has.
        threads: what the shell tells libraries to use; the stages take compute.threads instead.
    """

    folder: str
    hash_seed: int
    zone: str
    locale: str
    threads: int


HERE = World("study", hash_seed=1, zone="UTC0", locale="C.UTF-8", threads=1)
ELSEWHERE = World("another stüdy", hash_seed=2, zone="NPT-5:45", locale="C", threads=3)

_NOT_THE_CALLERS = ("GIT_", "DVC_", "PYTHON", "HF_", "XDG_", "LC_", "LANG", "TZ")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# How this machine installs packages is no part of the study, and lies in the home.
_OF_PIP = (".config/pip", ".pip", ".cache/pip")


class CommandError(Exception):
    """A command in a clone failed; the message is what it printed."""


@dataclass(frozen=True)
class Clone:
    """A temporary clone of the study.

    Attributes:
        environment: what its commands see: this clone's git and DVC settings alone, a home of its
            own, and this Python as `python`.
    """

    root: Path
    environment: dict[str, str]

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a command, the leader of its own process group, its output in one pipe."""
        return subprocess.Popen(
            command,
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )

    def do(self, *command: str) -> str:
        """The output of a command.

        Raises:
            CommandError: if it fails.
        """
        return finished(self.start(*command))

    def repro(self) -> set[str]:
        """Run the study; the stages that were run for it."""
        return stages_run(self.do("dvc", "repro"))

    def set_param(self, section: str, key: str, value: Any) -> None:
        yaml = YAML()
        params = yaml.load(self.root / "params.yaml")
        params[section][key] = value
        yaml.dump(params, self.root / "params.yaml")

    def lock(self) -> dict[str, Any]:
        """dvc.lock's stages by name, in its order."""
        return read_lock(self.root)

    def with_environment(self, **values: str) -> Clone:
        return replace(self, environment={**self.environment, **values})


def read_lock(root: Path) -> dict[str, Any]:
    return dict(YAML(typ="safe", pure=True).load(root / LOCK)["stages"])


def finished(process: subprocess.Popen[str]) -> str:
    """The whole output of a command that succeeds.

    Raises:
        CommandError: if it fails.
    """
    output, _ = process.communicate()
    if process.returncode != 0:
        raise CommandError(output)
    return output


def stages_run(output: str) -> set[str]:
    return set(re.findall(r"^Running stage '(.+)':", output, re.MULTILINE))


def environment(home: Path, world: World = HERE) -> dict[str, str]:
    """An environment in which git and DVC know a clone alone, and `python` is this Python."""
    for name in _OF_PIP:
        if (Path.home() / name).is_dir() and not (home / name).is_symlink():
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).symlink_to(Path.home() / name)
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(_NOT_THE_CALLERS)
    }
    return {
        **inherited,
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONHASHSEED": str(world.hash_seed),
        "TZ": world.zone,
        "LC_ALL": world.locale,
        **dict.fromkeys(_THREADS, str(world.threads)),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "DVC_GLOBAL_CONFIG_DIR": str(home / "dvc"),
        "DVC_SITE_CACHE_DIR": str(home / "dvc-site"),
        "DVC_NO_ANALYTICS": "1",
        **{
            f"GIT_{who}_{what}": value
            for who in ("AUTHOR", "COMMITTER")
            for what, value in (("NAME", "Test"), ("EMAIL", "test@example.org"))
        },
    }


def source_files(source: Path) -> list[str]:
    """What git tracks or would track below ``source``, without the study's results."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=source, capture_output=True, text=True, check=True).stdout
    return [
        name
        for name in sorted(filter(None, names.split("\0")))
        if (source / name).is_file() and name != LOCK and not name.startswith("reports/")
    ]


def make_clone(source: Path, root: Path, settings: Settings, world: World = HERE) -> Clone:
    """A clone of ``source`` as its files stand, without results, committed with ``settings``.

    The folder that holds ``root`` is the clone's home.
    """
    for name in source_files(source):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / name, root / name)
    clone = Clone(root, environment(root.parent, world))
    for section, values in settings.items():
        for key, value in values.items():
            clone.set_param(section, key, value)
    clone.do("git", "init", "--quiet")
    commit(clone)
    return clone


def commit(clone: Clone) -> None:
    clone.do("git", "add", "--all")
    clone.do("git", "commit", "--quiet", "--message", "The study")


def artifacts_of(stages: Mapping[str, Any]) -> list[str]:
    """The outputs that a dvc.lock lists, in the order of its stages."""
    return [out["path"] for stage in stages.values() for out in stage.get("outs", [])]
