"""Stage ``attribute_base``: the base model's circuit of every chosen prompt.

Randomly initialised models, where asked for, are traced on the same prompts and targets.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.progress import track
from transformers import PreTrainedModel

from circuitdrift import paths
from circuitdrift.artifacts import replacing
from circuitdrift.attribution.circuits import tokenise, trace_circuits
from circuitdrift.attribution.prompts import choose_prompts
from circuitdrift.circuit_files import save_circuits
from circuitdrift.dataset import read_prompts
from circuitdrift.identifiers import BASE, derived_seed
from circuitdrift.models.loading import load_model, load_tokenizer, use_threads
from circuitdrift.models.random_models import random_model

if TYPE_CHECKING:
    from circuitdrift.config.params import Params


def run(params: Params) -> None:
    settings = params.attribution
    use_threads(params.compute.threads)
    tokenizer, base = load_tokenizer(paths.BASE_MODEL), load_model(paths.BASE_MODEL)
    prompts = choose_prompts(read_prompts(paths.PROMPTS), settings)
    tokenised = tokenise(prompts, base, tokenizer)
    with replacing(paths.attributions(BASE)) as directory:
        n_random = params.nulls.random_models
        for name, model in track(
            _models(base, n_random), description="circuits of the base model", total=1 + n_random
        ):
            circuits = trace_circuits(model, tokenizer, tokenised, settings)
            save_circuits(directory / name, circuits)


def _models(base: PreTrainedModel, n_random: int) -> Iterator[tuple[str, PreTrainedModel]]:
    """File and model, one random model in memory at a time."""
    yield paths.attribution(BASE, BASE).name, base
    for draw in range(n_random):
        seed = derived_seed("random model", draw)
        yield paths.random_model_attribution(draw).name, random_model(paths.BASE_MODEL, seed)
