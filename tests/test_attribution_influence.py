from __future__ import annotations

import pytest
import torch

from circuitdrift.attribution.influence import node_influence, normalise, prune, scores

# Two features, one error, one token, one target, in that order; rows are targets.
#   target <- f1 (3), f2 (-1);  f2 <- f1 (2), error (2);  f1 <- token (5).
F1, F2, ERROR, TOKEN, TARGET = range(5)
A = torch.zeros(5, 5)
A[TARGET, F1], A[TARGET, F2] = 3, -1
A[F2, F1], A[F2, ERROR] = 2, 2
A[F1, TOKEN] = 5
WEIGHTS = torch.tensor([0.0, 0, 0, 0, 1])
IS_FEATURE = torch.tensor([True, True, False, False, False])
IS_ERROR = torch.tensor([False, False, True, False, False])
IS_TOKEN = torch.tensor([False, False, False, True, False])


def test_influence_worked_by_hand() -> None:
    # f2: 1/4. f1: 3/4 + 1/4 * 1/2 = 7/8. error: 1/4 * 1/2 = 1/8. token: all of f1's.
    influence = node_influence(normalise(A), WEIGHTS)
    assert influence.tolist() == pytest.approx([7 / 8, 1 / 4, 1 / 8, 7 / 8, 0])


def test_a_cycle_is_refused() -> None:
    cyclic = torch.tensor([[0.0, 1, 0], [1, 0, 0], [1, 0, 0]])
    with pytest.raises(ValueError, match="cycle"):
        node_influence(normalise(cyclic), torch.tensor([0.0, 0, 1]))


def test_scores_worked_by_hand() -> None:
    found = scores(normalise(A), WEIGHTS, IS_ERROR, IS_TOKEN)
    assert found.replacement == pytest.approx((7 / 8) / (7 / 8 + 1 / 8))
    # Reached: f1 7/8, f2 1/4, error 1/8, token 7/8, target 1; only f2 takes half from an error.
    reached = 7 / 8 + 1 / 4 + 1 / 8 + 7 / 8 + 1
    assert found.completeness == pytest.approx((reached - 1 / 4 * 1 / 2) / reached)
    assert found.error_mass == pytest.approx((1 / 8) / (7 / 8 + 1 / 4 + 1 / 8 + 7 / 8))


def test_pruning_worked_by_hand() -> None:
    # Descending influence: 7/8, 7/8, 1/4, 1/8 of 17/8. Half of it is held by f1 and the token, so
    # f2 and the error go, and every edge left is on the path token -> f1 -> target.
    kept = prune(A, WEIGHTS, IS_FEATURE, IS_ERROR, (0.5, 1.0))
    assert kept.nodes.tolist() == [True, False, False, True, True]
    assert kept.edges[TARGET, F1]
    assert kept.edges[F1, TOKEN]


def test_what_dangles_goes_with_what_it_hung_on() -> None:
    # Keeping only the heaviest edge (target <- f1 carries 3/4, f1 <- token 7/8) leaves f2 and the
    # error without an edge; they go although their influence had kept them.
    kept = prune(A, WEIGHTS, IS_FEATURE, IS_ERROR, (1.0, 0.6))
    assert kept.nodes.tolist() == [True, False, False, True, True]
    assert kept.edges.nonzero().tolist() == [[F1, TOKEN], [TARGET, F1]]
