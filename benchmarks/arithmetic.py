"""The floating-point operations that an attribution cannot do without, to hold its time against."""

from __future__ import annotations

import torch

from circuitdrift.attribution.edges import Rows
from circuitdrift.attribution.linear_model import LinearModel


def edges_operations(linear: LinearModel, rows: Rows, n_features: int) -> float:
    """Multiplications and additions of :func:`circuitdrift.attribution.edges.edges_into`.

    A row read at position p has p + 1 positions. At every layer from its own down, each of them
    passes the output projection, the pattern (from every query to the keys before it) and the
    value projection, and meets the sources written there. At its own layer a row stands at
    one position only, so that the output projection is needed once.
    """
    attention = linear.block(0).self_attn
    d_model = attention.o_proj.weight.shape[0]
    d_heads = attention.o_proj.weight.shape[1]
    d_values = attention.v_proj.weight.shape[0]
    own_layer = rows.layer.double()
    n_attention = torch.where(rows.layer == linear.n_layers, own_layer, own_layer + 1)
    n_positions = rows.position.double() + 1
    starts_inside = (rows.layer < linear.n_layers).double()
    output = d_model * d_heads * (n_positions * (n_attention - starts_inside) + starts_inside)
    pattern = d_heads * n_positions * (n_positions + 1) / 2 * n_attention
    values = d_model * d_values * n_positions * n_attention
    per_layer = n_features / linear.n_layers
    scoring = d_model * own_layer * (per_layer + n_positions) + d_model * n_positions
    return 2 * float((output + pattern + values + scoring).sum())


def effects_operations(linear: LinearModel) -> float:
    """Multiplications and additions of :func:`circuitdrift.attribution.effects.effects` for one
    target per prompt: every position through every attention block and every MLP, three ways."""
    block = linear.block(0)
    attention, mlp = block.self_attn, block.mlp
    weights = sum(
        projection.weight.numel()
        for projection in (
            attention.o_proj,
            attention.v_proj,
            mlp.gate_proj,
            mlp.up_proj,
            mlp.down_proj,
        )
    )
    n_tokens = float(linear.frozen.lengths.sum())
    return 2.0 * weights * n_tokens * linear.n_layers
