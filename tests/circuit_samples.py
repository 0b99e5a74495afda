"""Small circuits made by hand, for the tests of what is done with circuits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from circuitdrift.circuits.circuit import Circuit, CircuitGraph, Floats, NodeKind, Scores
from circuitdrift.core.prompts import TracedPrompt

PROMPT = TracedPrompt(
    id="a",
    role="near",
    type="simple",
    word="blarf",
    template="{word}",
    tokens=(5, 6),
    segments=("start", "last"),
    answers=(1, 2, 3),
    answer=0,
)
GRAPH = CircuitGraph(
    nodes=np.array(
        [
            [NodeKind.FEATURE, 0, 0, 2],
            [NodeKind.FEATURE, 0, 1, 1],
            [NodeKind.TOKEN, -1, 0, 5],
            [NodeKind.TOKEN, -1, 1, 6],
            [NodeKind.TARGET, -1, 1, -1],
        ],
        dtype=np.int32,
    ),
    influence=np.array([0.5, 1.0, 0.5, 0.5, 0], dtype=np.float32),
    activation=np.array([2.0, -1, 0, 0, 0], dtype=np.float32),
    edges=np.array([[0, 2], [1, 0], [1, 3], [4, 1]], dtype=np.int32),
    weights=np.array([2.0, 0.5, -0.5, 1], dtype=np.float32),
    scores=Scores(replacement=0.75, completeness=0.875, error_mass=0.125),
)
"""The target hears the feature L0/P1/F1, which hears L0/P0/F2 and the second token; L0/P0/F2 hears
the first token."""


def circuit(
    prompt: TracedPrompt | str = PROMPT, seed: int = 0, effects: Floats | None = None
) -> Circuit:
    """Two targets, two layers, two tokens, three neurons, unless ``effects`` say otherwise; GRAPH.

    Args:
        prompt: or the id of another like PROMPT.
    """
    if isinstance(prompt, str):
        prompt = replace(PROMPT, id=prompt)
    n = prompt.n_targets
    if effects is None:
        effects = np.random.default_rng(seed).standard_normal((n, 2, 2, 3)).astype(np.float32)
    return Circuit(
        prompt=prompt,
        values=np.full(n, 0.5 + seed, dtype=np.float32),
        effects=effects,
        token_effects=np.tile(np.float32([0.25, 0.25 + seed]), (n, 1)),
        graph=GRAPH,
    )
