"""Stage ``attribute_base``: the base model's circuit of every chosen prompt."""

from __future__ import annotations

from rich.progress import track

from circuitdrift import paths
from circuitdrift.artifacts import replacing
from circuitdrift.attribution.circuits import tokenise, trace_circuits
from circuitdrift.attribution.prompts import choose_prompts
from circuitdrift.config import Params
from circuitdrift.dataset import read_prompts
from circuitdrift.graph import save_circuits
from circuitdrift.identifiers import BASE
from circuitdrift.models.loading import load_model, load_tokenizer, use_threads


def run(params: Params) -> None:
    settings = params.attribution
    use_threads(params.compute.threads)
    prompts = choose_prompts(read_prompts(paths.PROMPTS), settings)
    tokenizer, base = load_tokenizer(paths.BASE_MODEL), load_model(paths.BASE_MODEL)
    tokenised = tokenise(prompts, base, tokenizer)
    traced = trace_circuits(base, tokenizer, tokenised, settings)
    with replacing(paths.attributions(BASE)) as directory:
        save_circuits(
            directory / f"{BASE}.safetensors",
            list(track(traced, description=f"circuits of {BASE}", total=len(tokenised))),
        )
