"""What the attribution benchmarks run on and read: two real models, plain English, the machine."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TypeVar

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedModel

from circuitdrift.attribution.frozen import freeze
from circuitdrift.attribution.linear_model import LinearModel
from circuitdrift.core import paths
from circuitdrift.core.files import read_json
from circuitdrift.core.tokens import encode, load_tokenizer
from circuitdrift.importing.sources import import_model
from circuitdrift.models.loading import load_model
from circuitdrift.params import Base

TEXT = (
    "The river ran slowly through the valley, and the old mill by the bridge had not turned for "
    "twenty years. Every morning the baker walked past it on his way to the village, carrying two "
    "baskets of bread, and every morning he stopped for a moment to listen to the water. His wife "
    "said that he was waiting for the wheel to move. He said that he was only resting his arms. "
    "In the winter the river froze and there was nothing to hear, but he stopped all the same, "
    "and the children who followed him to school learned to stop there too, without knowing why "
    "they did, and long after he was gone they still looked up at the mill when they passed it."
)
Result = TypeVar("Result")


@dataclass(frozen=True)
class Subject:
    """A model with its tokenizer."""

    name: str
    model: PreTrainedModel
    tokenizer: Tokenizer

    def prompt(self, n_tokens: int) -> list[int]:
        """The first tokens of the text, special token included."""
        tokens = encode(self.tokenizer, TEXT).ids[:n_tokens]
        assert len(tokens) == n_tokens
        return list(tokens)

    def direction(self, linear: LinearModel) -> Tensor:
        """Top answer against the next two, at the end of the prompt ``[d_model]``."""
        unembedding = self.model.lm_head.weight.detach()
        logits = unembedding @ linear.frozen.final_normalised[0]
        answer, *others = torch.topk(logits, 3).indices.tolist()
        return unembedding[answer] - unembedding[others].mean(0)

    def frozen(self, tokens: list[int]) -> LinearModel:
        return LinearModel(self.model, freeze(self.model, [tokens]))


@contextmanager
def subject(name: str) -> Iterator[Subject]:
    """A model of the catalogue: the study's own where it is that one, else imported for now."""
    imported = paths.BASE_MODEL / "source.json"
    if imported.exists() and read_json(imported).get("model") == name:
        yield _load(name, paths.BASE_MODEL)
        return
    with TemporaryDirectory() as directory:
        path = Path(directory) / "base"
        import_model(Base(model=name, directory="models/own"), path)
        yield _load(name, path)


def _load(name: str, path: Path) -> Subject:
    return Subject(name, load_model(path), load_tokenizer(path))


def timed(work: Callable[[], Result], repeats: int, enough_s: float) -> tuple[Result, list[float]]:
    """Result and seconds of each run: ``repeats`` runs, fewer once they took ``enough_s``."""
    seconds: list[float] = []
    while True:
        began = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - began)
        if len(seconds) >= repeats or sum(seconds) >= enough_s:
            return result, seconds


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
