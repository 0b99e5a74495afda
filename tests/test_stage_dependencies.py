"""dvc.yaml against the code: a stage lists the modules it imports and the params it reads."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from circuitdrift import paths
from circuitdrift.config.params import Params

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"
ENTRY = SOURCE / "run.py"
COMMANDS = SOURCE / "circuitdrift" / "cli.py"
DATA_FILES = [
    path
    for path in (SOURCE / "circuitdrift").rglob("*")
    if path.is_file() and path.suffix not in {".py", ".pyc"}
]
STAGES: dict[str, dict[str, Any]] = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]


def stage_module(stage: str) -> Path:
    return SOURCE / "circuitdrift" / "stages" / f"{stage}.py"


def module_files(name: str) -> Iterator[Path]:
    """The files of this repository that importing ``name`` runs: its packages' and its own."""
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        path = SOURCE.joinpath(*parts[:depth])
        if (path / "__init__.py").is_file():
            yield path / "__init__.py"
        elif path.with_suffix(".py").is_file():
            yield path.with_suffix(".py")


def imported_names(file: Path) -> Iterator[str]:
    """Every module that ``file`` imports, inside functions too; ``a.b`` for ``from a import b``."""
    for node in nodes_that_run(parse(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import, which this test cannot follow"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def nodes_that_run(tree: ast.AST) -> Iterator[ast.AST]:
    """All of ``tree`` but what stands under ``if TYPE_CHECKING:``, which never runs."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting.extend(node.orelse)
        else:
            waiting.extend(ast.iter_child_nodes(node))


@cache
def parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def runs_code(file: Path) -> bool:
    """Whether ``file`` is more than a docstring, as the ``__init__`` of a room is not."""
    return any(
        not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for node in parse(file).body
    )


def files_read(file: Path) -> set[Path]:
    """The files beside the code, such as templates, whose name is a string in ``file``."""
    strings = {node.value for node in ast.walk(parse(file)) if isinstance(node, ast.Constant)}
    return {path for path in DATA_FILES if path.name in strings}


def closure(*entries: Path) -> set[str]:
    """What ``entries`` import of this repository, directly or not, and the files that these read,
    as dvc.yaml would name them."""
    found: set[Path] = set()
    waiting = list(entries)
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            for name in imported_names(file):
                waiting.extend(module_files(name))
    code = {file for file in found if runs_code(file)}
    return {file.relative_to(ROOT).as_posix() for file in code.union(*map(files_read, code))}


def sections_read(tree: ast.AST, file: Path) -> set[str]:
    """The sections that ``tree``, a part of ``file``, takes of ``params``, also where it hands
    ``params`` on: the functions of this repository that it calls with it are followed."""
    functions = {node.name: node for node in parse(file).body if isinstance(node, ast.FunctionDef)}
    sections = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_params(node.value):
            sections.add(node.attr)
        if isinstance(node, ast.Call) and any(map(is_params, node.args)):
            assert isinstance(node.func, ast.Name), f"{file}: {ast.unparse(node)} is not followed"
            called = node.func.id
            if called in functions:
                sections |= sections_read(functions[called], file)
            for name in imported_names(file):
                if name.endswith(f".{called}"):
                    *_, origin = module_files(name)
                    sections |= sections_read(function(origin, called), origin)
    return sections


def sections_listed(stage: str) -> set[str]:
    return {param.partition(".")[0] for param in STAGES[stage].get("params", [])}


def section_file(section: str) -> Path:
    """The file of the class that holds a section of params.yaml."""
    annotation = Params.model_fields[section].annotation
    assert annotation is not None
    *_, file = module_files(annotation.__module__)
    return file


def is_params(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "params"


def function(file: Path, name: str) -> ast.FunctionDef:
    return next(
        node for node in parse(file).body if isinstance(node, ast.FunctionDef) and node.name == name
    )


def artifacts_named(file: Path) -> set[str]:
    """Every path of circuitdrift.paths that ``file`` names; ``*`` for what it is a function of."""
    names = {
        node.attr
        for node in ast.walk(parse(file))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "paths"
    } | {
        name.rpartition(".")[2]
        for name in imported_names(file)
        if name.startswith("circuitdrift.paths.")
    }
    values = [getattr(paths, name) for name in names]
    return {
        str(value(*["*"] * len(signature(value).parameters)) if callable(value) else value)
        for value in values
    }


def artifacts_listed(stage: str) -> set[str]:
    """Deps and outs of ``stage`` other than code; ``*`` for what the matrix fills in."""
    definition = STAGES[stage]
    outs = [out if isinstance(out, str) else next(iter(out)) for out in definition["outs"]]
    inputs = [dep for dep in definition["deps"] if not dep.startswith("src/")]
    return {re.sub(r"\$\{.*?\}", "*", path) for path in inputs + outs}


def overlap(one: str, other: str) -> bool:
    """Whether two paths, ``*`` standing for any part, are the same or one lies in the other."""
    return all(
        fnmatch(a, b) or fnmatch(b, a)
        for a, b in zip(one.split("/"), other.split("/"), strict=False)
    )


def test_every_stage_module_is_a_stage_of_dvc_yaml() -> None:
    modules = {file.stem for file in stage_module("").parent.glob("*.py")} - {"__init__"}
    assert set(STAGES) == modules


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_runs_its_own_module(stage: str) -> None:
    program, entry, name, *run = STAGES[stage]["cmd"].split()
    assert (program, entry, name) == ("python", "src/run.py", stage)
    assert run == (["${key}"] if "matrix" in STAGES[stage] else [])


@pytest.mark.parametrize("stage", STAGES)
def test_the_code_deps_are_the_modules_imported(stage: str) -> None:
    listed = {dep for dep in STAGES[stage]["deps"] if dep.startswith("src/")}
    # What run.py imports itself (preflight, and with it all of config) refuses bad input and writes
    # nothing, so a change there makes no result stale. But a section comes with code of its own.
    sections = map(section_file, sections_listed(stage))
    imported = closure(stage_module(stage), *sections) | {"src/run.py"}
    assert sorted(imported - listed) == [], f"add these to the deps of {stage}"
    assert sorted(listed - imported) == [], f"remove these from the deps of {stage}"


def test_every_file_beside_the_code_is_a_dep_or_a_commands() -> None:
    listed = {dep for stage in STAGES.values() for dep in stage["deps"]}
    # What a command reads, such as the template of its page, makes no stage's output stale.
    read_by_commands = closure(COMMANDS)
    assert {path.relative_to(ROOT).as_posix() for path in DATA_FILES} <= listed | read_by_commands


@pytest.mark.parametrize("stage", STAGES)
def test_the_params_listed_are_those_read(stage: str) -> None:
    listed = sections_listed(stage)
    read = sections_read(parse(stage_module(stage)), stage_module(stage))
    assert read <= set(Params.model_fields)
    assert sorted(read - listed) == [], f"add these to the params of {stage}"
    assert sorted(listed - read) == [], f"remove these from the params of {stage}"


@pytest.mark.parametrize("stage", STAGES)
def test_no_section_is_a_dep_but_those_read(stage: str) -> None:
    files = {section: section_file(section) for section in Params.model_fields}
    read = {files[section] for section in sections_listed(stage)}
    depended_on = {ROOT / dep for dep in STAGES[stage]["deps"]} & {*files.values()}
    assert depended_on == read


@pytest.mark.parametrize("stage", STAGES)
def test_the_artifacts_listed_are_those_the_stage_names(stage: str) -> None:
    listed, named = artifacts_listed(stage), artifacts_named(stage_module(stage))
    unlisted = [path for path in named if not any(overlap(path, other) for other in listed)]
    unnamed = [path for path in listed if not any(overlap(path, other) for other in named)]
    assert sorted(unlisted) == [], f"add these to the deps or outs of {stage}"
    assert sorted(unnamed) == [], f"{stage} has no use for these"


def test_the_closure_follows_imports_inside_functions_and_through_modules() -> None:
    imported = closure(ENTRY)
    assert "src/circuitdrift/preflight.py" in imported  # imported inside main()
    assert "src/circuitdrift/identifiers.py" in imported  # by config, not by run.py
    assert "src/circuitdrift/__init__.py" not in imported  # a docstring alone


def test_an_import_for_type_checking_alone_is_no_dependency(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(
        "if TYPE_CHECKING:\n"
        "    from one import A\n"
        "else:\n"
        "    from two import A\n"
        "if A:\n"
        "    import three\n"
    )
    assert set(imported_names(file)) == {"two.A", "three"}
