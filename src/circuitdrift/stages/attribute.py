"""Stage ``attribute@run``: the circuit of every chosen prompt at each checkpoint of a run."""

from __future__ import annotations

from rich.progress import track

from circuitdrift import paths
from circuitdrift.artifacts import replacing
from circuitdrift.attribution.circuits import tokenise, trace_circuits
from circuitdrift.attribution.prompts import choose_prompts
from circuitdrift.checkpoints import checkpoints_in
from circuitdrift.config import Params
from circuitdrift.dataset import read_prompts
from circuitdrift.graph import save_circuits
from circuitdrift.models.loading import load_model, load_tokenizer, use_threads
from circuitdrift.models.lora import load_checkpoint


def run(params: Params, run_name: str) -> None:
    settings = params.attribution
    use_threads(params.compute.threads)
    prompts = choose_prompts(read_prompts(paths.PROMPTS), settings)
    tokenizer = load_tokenizer(paths.BASE_MODEL)
    tokenised = tokenise(prompts, load_model(paths.BASE_MODEL), tokenizer)
    with replacing(paths.attributions(run_name)) as directory:
        for adapter in checkpoints_in(paths.CHECKPOINTS / run_name):
            model = load_checkpoint(paths.BASE_MODEL, adapter)
            traced = trace_circuits(model, tokenizer, tokenised, settings)
            save_circuits(
                directory / f"{adapter.name}.safetensors",
                list(
                    track(
                        traced,
                        description=f"circuits of {run_name}/{adapter.name}",
                        total=len(tokenised),
                    )
                ),
            )
