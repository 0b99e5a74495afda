"""Files of circuits whose tensors fit one another, and files that hold none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from circuit_samples import circuit
from circuitdrift.circuit_files import save_circuits
from circuitdrift.integrity.circuits import circuit_problems

GRAPH = circuit("one").graph
assert GRAPH is not None


@pytest.mark.parametrize(
    ("changed", "wrong"),
    [
        ({"tokens": (5, 6, 7)}, "effects [2, 2, 3] of 3 tokens"),
        ({"segments": ("start",)}, "1 segments of 2 tokens"),
        ({"token_effects": torch.ones(3)}, "token_effects [3] of 2 tokens"),
        ({"token_effects": torch.tensor([0.0, float("nan")])}, "token_effects are not finite"),
        ({"graph": replace(GRAPH, influence=torch.ones(4))}, "influence [4] of a graph of 5 nodes"),
        ({"graph": replace(GRAPH, weights=torch.ones(3))}, "weights [3] of a graph of 5 nodes"),
        (
            {"graph": replace(GRAPH, edges=torch.tensor([[9, 0]] * 4).int())},
            "an edge to node 9 of 5",
        ),
    ],
)
def test_circuits_whose_tensors_do_not_fit_are_findings(
    tmp_path: Path, changed: dict[str, Any], wrong: str
) -> None:
    path = tmp_path / "a.safetensors"
    save_circuits(path, [circuit("one")])
    assert list(circuit_problems(path)) == []
    save_circuits(path, [circuit("one"), replace(circuit("two"), **changed)])
    (found,) = [each for each in circuit_problems(path) if wrong in each]
    assert found.startswith("prompt two: ")


def test_a_file_without_circuits_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="holds no circuits"):
        list(circuit_problems(tmp_path / "a.safetensors"))
    save_circuits(tmp_path / "a.safetensors", [])
    assert list(circuit_problems(tmp_path / "a.safetensors")) == ["no circuit in it"]
