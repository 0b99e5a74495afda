"""Which kernels compute: this processor's fastest, or those that give the same bits on others.

What computes picks its loops by the processor when it is first imported, and loops that sum in
another order give other last bits. So this is set before, in the environment.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from circuitdrift.params import Compute

PORTABLE = {
    "MKL_CBWR": "COMPATIBLE",  # torch's small products, exp and log: MKL's path for all vendors
    "DNNL_MAX_CPU_ISA": "AVX2",  # torch's large products (circuitdrift.models.products)
    "ATEN_CPU_CAPABILITY": "avx2",  # torch's own loops, as wide as AVX2 has them
    "OPENBLAS_CORETYPE": "Haswell",  # numpy's and scipy's products, likewise
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",  # numpy's exp and log, likewise
}
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def set_kernels(compute: Compute) -> None:
    """Set threads and kernels of every library that computes; none may be imported before."""
    os.environ.update(dict.fromkeys(THREADS, str(compute.threads)))
    if compute.kernels == "portable":
        os.environ.update(PORTABLE)
