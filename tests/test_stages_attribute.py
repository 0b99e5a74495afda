from __future__ import annotations

from pathlib import Path

import pytest

from circuitdrift.circuits.files import load_circuits
from circuitdrift.core import paths
from circuitdrift.core.prompts import read_prompts
from circuitdrift.core.study import BASE
from circuitdrift.params import load_params


def test_a_run_is_traced_on_the_bases_prompts_beside_its_null(
    tiny_study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_study)
    roles = {prompt.id: prompt.role for prompt in read_prompts(paths.PROMPTS)}
    base = load_circuits(paths.attribution(BASE, BASE))
    assert all(prompt.role == roles[prompt.id] for prompt in base.prompts)
    assert {prompt.role for prompt in base.prompts} == {"discovery", "near", "control"}

    # Nodes are chosen on discovery prompts at the end, in runs that teach an assignment.
    compared = [prompt for prompt in base.prompts if prompt.role != "discovery"]
    first, last = (load_circuits(paths.attribution("mapped-0", name)) for name in ("050", "100"))
    null = load_circuits(paths.random_attribution("mapped-0", 0, "100"))
    assert (last.prompts, first.prompts, null.prompts) == (base.prompts, compared, compared)
    assert load_circuits(paths.attribution("unrelated-0", "100")).prompts == compared
    assert not paths.random_attribution("mapped-0", 0, "050").exists()


def test_the_runs_of_some_seeds_have_graphs(
    tiny_study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_study)
    assert load_params(paths.PARAMS).attribution.graph_seeds == (0,)

    def with_graphs(path: Path) -> set[str]:
        return {one.prompt.id for one in load_circuits(path) if one.graph is not None}

    of_base = with_graphs(paths.attribution(BASE, BASE))
    assert len(of_base) > 0
    assert with_graphs(paths.attribution("mapped-0", "050")) == of_base
    assert not with_graphs(paths.attribution("mapped-1", "050"))
    assert not with_graphs(paths.random_attribution("mapped-0", 0, "100"))
