"""The positive control: whether the comparison finds a change that was planted."""

from __future__ import annotations

import numpy as np

from circuitdrift.comparison import Array


def planted_rank(before: Array, after: Array, layer: int, feature: int) -> dict[str, float]:
    """Where the planted feature stands among all, by |mean change over prompts|.

    Args:
        before, after: effects summed over positions, without and with the planted change
            ``[n_prompts, n_layers, d_mlp]``.
        layer, feature: what was planted.

    Returns:
        rank: 1 where no other feature changed as much; equals count against it.
        change: the planted feature's mean change, in logits.
        runner_up: that of the other feature that changed most.
    """
    change = (after.astype(np.float64) - before).mean(0)
    planted = change[layer, feature]
    others = np.delete(change.ravel(), layer * change.shape[1] + feature)
    return {
        "rank": 1 + int(np.count_nonzero(np.abs(others) >= abs(planted))),
        "change": float(planted),
        "runner_up": float(others[np.argmax(np.abs(others))]),
    }
