"""The code itself: nothing in it unpickles, evaluates text, or lets a hub's code run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CODE = sorted(path for folder in ("src", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
PICKLING = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
READING_PICKLES = {"torch.load", "pandas.read_pickle", "pd.read_pickle", "Graph.from_pt"}
RUNNING_TEXT = {"eval", "exec", "compile", "os.system", "os.popen"}
# Loaders of transformers that would import Python files beside a model, if they were let.
LOADERS = {"from_pretrained", "from_config"}


def broken_rules(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (f"imports {name}" for name in sorted(roots(node) & PICKLING))
        if isinstance(node, ast.Call):
            yield from broken_by_call(node)


def roots(node: ast.Import | ast.ImportFrom) -> set[str]:
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module]
    return {name.partition(".")[0] for name in names if name}


def broken_by_call(node: ast.Call) -> Iterator[str]:
    called = ast.unparse(node.func)
    keywords = {keyword.arg: keyword.value for keyword in node.keywords}
    if called in READING_PICKLES | RUNNING_TEXT:
        yield f"calls {called}"
    for name in ("allow_pickle", "shell", "trust_remote_code"):
        if name in keywords and not says(keywords[name], False):
            yield f"{name}={ast.unparse(keywords[name])}"
    if called.endswith("YAML") and not (says(keywords.get("typ"), "safe") or not keywords):
        yield f"reads YAML by {ast.unparse(node)}"
    of, _, loader = called.rpartition(".")
    if of.startswith("Auto") and loader in LOADERS and "trust_remote_code" not in keywords:
        yield f"{called} without trust_remote_code=False"


def says(node: ast.expr | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value == value


def test_no_code_unpickles_or_runs_what_it_reads() -> None:
    broken = {
        file.relative_to(ROOT).as_posix(): list(broken_rules(ast.parse(file.read_text("utf-8"))))
        for file in CODE
    }
    assert {"src/run.py", "src/circuitdrift/models/local.py"} <= set(broken)
    assert {file: rules for file, rules in broken.items() if rules} == {}


@pytest.mark.parametrize(
    ("code", "broken"),
    [
        ("import pickle", "imports pickle"),
        ("from cloudpickle import loads", "imports cloudpickle"),
        ("torch.load(path, weights_only=True)", "calls torch.load"),
        ("numpy.load(path, allow_pickle=True)", "allow_pickle=True"),
        ("eval(text)", "calls eval"),
        ("subprocess.run(text, shell=True)", "shell=True"),
        ("YAML(typ='unsafe').load(path)", "reads YAML by YAML(typ='unsafe')"),
        (
            "AutoModelForCausalLM.from_pretrained(path)",
            "AutoModelForCausalLM.from_pretrained without trust_remote_code=False",
        ),
        (
            "AutoTokenizer.from_pretrained(path, trust_remote_code=trusted)",
            "trust_remote_code=trusted",
        ),
    ],
)
def test_the_rules_are_broken_where_they_should_be(code: str, broken: str) -> None:
    assert list(broken_rules(ast.parse(code))) == [broken]
