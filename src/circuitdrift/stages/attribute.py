"""Stage ``attribute@run``: the circuit of every chosen prompt at each checkpoint of a run.

Beside them, on the same prompts and targets, a null and the positive control: random adapters of
each checkpoint's norms, which say what any change of that size does (graphs at the last alone, for
their time); and the last checkpoint with one neuron's output scaled, a change that the comparison
must find.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.progress import track
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from circuitdrift import paths
from circuitdrift.artifacts import replacing, write_json
from circuitdrift.attribution.circuits import trace_circuits
from circuitdrift.attribution.prompts import TokenisedPrompt
from circuitdrift.checkpoints import checkpoints_in
from circuitdrift.circuit_files import load_circuits, save_circuits
from circuitdrift.dataset import read_prompts
from circuitdrift.graph import Circuit
from circuitdrift.identifiers import BASE, Run, derived_seed, feature_name
from circuitdrift.models.loading import load_tokenizer, use_threads
from circuitdrift.models.lora import load_checkpoint, load_randomised
from circuitdrift.models.planted import choose_planted, planting

if TYPE_CHECKING:
    from circuitdrift.config.params import Params


def run(params: Params, run_name: str) -> None:
    use_threads(params.compute.threads)
    tokenizer = load_tokenizer(paths.BASE_MODEL)
    base = load_circuits(paths.attribution(BASE, BASE))
    prompts = [TokenisedPrompt.of(circuit) for circuit in base]
    adapters = checkpoints_in(paths.CHECKPOINTS / run_name)
    last = adapters[-1].name
    n_random = params.nulls.random_lora
    with replacing(paths.attributions(run_name)) as directory:
        for path, model, with_graphs in track(
            _models(run_name, adapters, n_random),
            description=f"circuits of {run_name}",
            total=len(adapters) * (1 + n_random),
        ):
            asked = prompts if with_graphs else _without_graphs(prompts)
            circuits = trace_circuits(model, tokenizer, asked, params.attribution)
            save_circuits(directory / path.relative_to(paths.attributions(run_name)), circuits)
            if path == paths.attribution(run_name, last):
                _plant(params, run_name, last, model, tokenizer, directory=directory)


def _models(
    run_name: str, adapters: Sequence[Path], n_random: int
) -> Iterator[tuple[Path, PreTrainedModel, bool]]:
    """Place of the circuits, model, whether graphs are wanted; each is loaded when it is due."""
    for adapter in adapters:
        yield (
            paths.attribution(run_name, adapter.name),
            load_checkpoint(paths.BASE_MODEL, adapter),
            True,
        )
        for draw in range(n_random):
            seed = derived_seed(run_name, adapter.name, draw)
            yield (
                paths.random_attribution(run_name, draw, adapter.name),
                load_randomised(paths.BASE_MODEL, adapter, seed),
                adapter == adapters[-1],
            )


def _without_graphs(prompts: Sequence[TokenisedPrompt]) -> list[TokenisedPrompt]:
    return [replace(prompt, with_graph=False) for prompt in prompts]


def _plant(
    params: Params,
    run_name: str,
    checkpoint: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    *,
    directory: Path,
) -> None:
    """Trace the discovery prompts once more with one of the strong neurons scaled."""
    planted = params.nulls.planted
    inside = paths.attributions(run_name)
    roles = {prompt.id: prompt.role for prompt in read_prompts(paths.PROMPTS)}
    # As they were saved, to half precision: that is what the comparison will read.
    circuits = load_circuits(directory / paths.attribution(run_name, checkpoint).name)
    discovery = [circuit for circuit in circuits if roles[circuit.prompt] == "discovery"]
    mean_effect = _mean_effect(discovery)
    layer, feature = choose_planted(
        mean_effect, min(planted.among, mean_effect.numel()), Run.parse(run_name).seed
    )
    prompts = _without_graphs([TokenisedPrompt.of(circuit) for circuit in discovery])
    with planting(model, layer, feature, planted.scale):
        traced = trace_circuits(model, tokenizer, prompts, params.attribution)
    place = paths.planted_attribution(run_name, checkpoint).relative_to(inside)
    save_circuits(directory / place, traced)
    write_json(
        directory / paths.planted_description(run_name).relative_to(inside),
        {
            "checkpoint": checkpoint,
            "layer": layer,
            "feature": feature,
            "name": feature_name(layer, feature),
            "scale": planted.scale,
        },
    )


def _mean_effect(circuits: Sequence[Circuit]) -> torch.Tensor:
    """Summed over positions, mean over prompts ``[n_layers, d_mlp]``."""
    return torch.stack([circuit.effects.sum(1) for circuit in circuits]).mean(0)
