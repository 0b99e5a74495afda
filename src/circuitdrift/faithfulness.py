"""How much of a model's behaviour a circuit keeps, and areas under that over circuit sizes.

Follows MIB, the Mechanistic Interpretability Benchmark (Mueller et al. 2025, arXiv 2504.13151).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def faithfulness(value: ArrayLike, full: ArrayLike, empty: ArrayLike) -> NDArray[np.float64]:
    """f(C) = (m(C) - m(empty)) / (m(full) - m(empty)), each m the mean over prompts.

    A ratio of means, for a single prompt's denominator may be near 0. The full model has f = 1,
    the empty circuit 0; a circuit may lie outside both. NaN where the means of ``full`` and
    ``empty`` are equal, for then there is nothing to keep.

    Args:
        value: targets with all but the circuit ablated, logits ``[..., n_prompts]``.
        full: with nothing ablated, likewise.
        empty: with everything ablated, likewise.

    Returns:
        ``[...]``.
    """
    kept, whole, nothing = (np.mean(np.asarray(m, float), axis=-1) for m in (value, full, empty))
    span = whole - nothing
    # `where` leaves the NaN of `out` in place of a division by 0.
    out = np.full(np.broadcast_shapes(kept.shape, span.shape), np.nan)
    return np.divide(kept - nothing, span, out=out, where=span != 0)


def cpr(sizes: Sequence[float], f: ArrayLike) -> NDArray[np.float64]:
    """Circuit performance ratio: the integral of f over circuit sizes; higher is better.

    By the trapezoid rule over the sizes as they are, shares of all nodes on a linear axis, from the
    smallest to the largest given, as MIB has it: nothing is added at size 0, so the full model's
    is 1 minus the smallest size.

    Args:
        sizes: ascending, 0..1 ``[n_sizes]``.
        f: faithfulness at each ``[..., n_sizes]``.

    Raises:
        ValueError: if the sizes do not ascend.
    """
    return _area(sizes, np.asarray(f, float))


def cmd(sizes: Sequence[float], f: ArrayLike) -> NDArray[np.float64]:
    """Circuit-model distance: the integral of |1 - f| over circuit sizes; 0 is best.

    As :func:`cpr`, for circuits that are to do what the model does and no more.
    """
    return _area(sizes, np.abs(1 - np.asarray(f, float)))


def _area(sizes: Sequence[float], heights: NDArray[np.float64]) -> NDArray[np.float64]:
    if not (np.diff(sizes) > 0).all():
        raise ValueError(f"sizes must ascend, got {list(sizes)}")
    return np.asarray(np.trapezoid(heights, sizes, axis=-1))
