from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from circuitdrift.circuits.files import load_circuits
from circuitdrift.core import paths
from circuitdrift.core.files import read_json
from circuitdrift.core.prompts import read_prompts
from circuitdrift.core.study import BASE

RUN = "mapped-0"


def test_a_run_is_traced_on_the_bases_prompts_beside_its_null_and_its_control(
    tiny_study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_study)
    described = {prompt.id: prompt for prompt in read_prompts(paths.PROMPTS)}
    base = load_circuits(paths.attribution(BASE, BASE))
    assert all(one.prompt.role == described[one.prompt.id].role for one in base)
    with_graph = [one.graph is not None for one in base]
    assert 0 < sum(with_graph) < len(base)

    last = load_circuits(paths.attribution(RUN, "100"))
    nulls = {name: load_circuits(paths.random_attribution(RUN, 0, name)) for name in ("050", "100")}
    for circuits in (last, *nulls.values()):
        assert [one.prompt for one in circuits] == [one.prompt for one in base]
    for circuits in (last, nulls["100"]):
        assert [one.graph is not None for one in circuits] == with_graph
    assert not any(one.graph for one in nulls["050"])

    planted = read_json(paths.planted_description(RUN))
    scaled = load_circuits(paths.planted_attribution(RUN, "100"))
    discovery = [one for one in last if one.prompt.role == "discovery"]
    assert [one.prompt for one in scaled] == [one.prompt for one in discovery]
    before, after = (
        np.mean([one.effects[planted["layer"], :, planted["feature"]].sum() for one in circuits])
        for circuits in (discovery, scaled)
    )
    assert planted["checkpoint"] == "100"
    assert abs(after) > abs(before)
