"""What the attribution benchmarks run on: the catalogue's two real models and plain English."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from circuitdrift import paths
from circuitdrift.artifacts import read_json
from circuitdrift.attribution.frozen_pass import freeze
from circuitdrift.attribution.linear_model import LinearModel
from circuitdrift.attribution.targets import top_answer_target
from circuitdrift.model_source import CatalogueModel
from circuitdrift.models.importing import import_model
from circuitdrift.models.loading import load_model, load_tokenizer

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
    tokenizer: PreTrainedTokenizerFast

    def prompt(self, n_tokens: int) -> list[int]:
        """The first tokens of the text, special token included."""
        tokens = self.tokenizer(TEXT).input_ids[:n_tokens]
        assert len(tokens) == n_tokens
        return list(tokens)

    def direction(self, linear: LinearModel) -> Tensor:
        """Top answer against the next two, at the end of the prompt ``[d_model]``."""
        unembedding = self.model.lm_head.weight.detach()
        return top_answer_target(unembedding @ linear.frozen.final_normalised[0]).direction(
            unembedding
        )

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
        import_model(CatalogueModel(name), path)
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
