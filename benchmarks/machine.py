"""The machine that a benchmark ran on, and how it is read: peak memory and matmul rate."""

from __future__ import annotations

import platform
import time
from pathlib import Path
from statistics import median

import torch


def matmul_rate(size: int = 2048, repeats: int = 7) -> float:
    """Float32 operations per second of a square matrix product, the median of some."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    torch.matmul(a, b)
    rates = []
    for _ in range(repeats):
        began = time.perf_counter()
        torch.matmul(a, b)
        rates.append(2 * size**3 / (time.perf_counter() - began))
    return median(rates)


def describe() -> str:
    """Processor, threads and versions, in a line."""
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    names = {
        line.partition(":")[2].strip() for line in cpuinfo.splitlines() if "model name" in line
    }
    return (
        f"{', '.join(sorted(names))}, {torch.get_num_threads()} threads, {platform.system()}, "
        f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"float32 matmul {matmul_rate() / 1e9:.0f} GFLOP/s"
    )


def forget_peak_memory() -> None:
    """Let :func:`peak_memory_gb` count from now on (Linux)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory_gb() -> float:
    """Largest resident memory of this process since it was last forgotten, in gigabytes."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e9
