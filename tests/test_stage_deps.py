"""dvc.yaml against the code: a stage names every room that it imports from."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src/circuitdrift"
STAGES = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text())["stages"]
# DVC tracks the values of params.yaml themselves, not the code that checks them.
NO_DEPS = {PACKAGE / "params.py", PACKAGE / "check.py"}


def imported(file: Path) -> Iterator[Path]:
    """The project's files that ``file`` imports, those for type checking left out."""
    tree = ast.parse(file.read_text())
    blocks = [
        n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test)
    ]
    for_types = {node for block in blocks for node in ast.walk(block)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node not in for_types:
            for name in node.names:
                for module in (f"{node.module}.{name.name}", str(node.module)):
                    path = ROOT / "src" / f"{module.replace('.', '/')}.py"
                    if path.is_file():
                        yield path


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_names_every_room_that_it_imports_from(name: str) -> None:
    file = PACKAGE / "stages" / f"{STAGES[name]['cmd'].split()[2]}.py"
    deps = [ROOT / dep for dep in STAGES[name]["deps"]]
    reached, waiting = set(), [file]
    while waiting:
        reached.add(current := waiting.pop())
        waiting += set(imported(current)) - reached - NO_DEPS
    unnamed = [path for path in reached if not any(path.is_relative_to(dep) for dep in deps)]
    rooms = {dep for dep in deps if dep.is_relative_to(PACKAGE)}
    unused = [room for room in rooms if not any(path.is_relative_to(room) for path in reached)]
    assert (unnamed, unused) == ([], [])
