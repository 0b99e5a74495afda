"""Products of matrices by oneDNN, whose kernels for AVX2 are the same on processors of all vendors.

MKL's only kernels of which that holds know no AVX2 and take three to seven times as long. Small
products stay with MKL, where starting oneDNN costs more than it saves.
"""

from __future__ import annotations

import warnings
from functools import cache

import torch
from torch import Tensor

LEAST = 2**20  # multiplications that are worth oneDNN's start


@cache
def multiply_by_onednn() -> torch.library.Library:
    """Have torch's ``mm`` on the CPU use oneDNN from here on; returns what keeps it so."""
    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is a kernel already
        library.impl("mm", _mm, "CPU")
    return library


def _mm(a: Tensor, b: Tensor) -> Tensor:
    """``a [n, inner] @ b [inner, m]``."""
    if a.dtype != torch.float32 or a.numel() * b.shape[1] < LEAST:
        return torch.ops.aten.mm.out(a, b, out=a.new_empty(len(a), b.shape[1]))
    # Strided as it is: a transposed copy of the weights would take longer than the product.
    product: Tensor = torch.ops.mkldnn._linear_pointwise(a, b.t(), None, "none", [], "")
    return product
