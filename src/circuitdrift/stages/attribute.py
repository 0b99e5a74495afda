"""Stage ``attribute@run``: the circuit of every chosen prompt at each checkpoint of a run.

``attribute base`` chooses the prompts, tokenises them and traces them in the base model; every
run's checkpoints are traced on the prompts of the base's circuits. Beside the checkpoints, a null
and the positive control: random adapters of each checkpoint's norms, which say what any change of
that size does (graphs at the last alone, for their time); and the last checkpoint with one
neuron's output scaled, a change that the comparison must find.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.progress import track

from circuitdrift.attribution.trace import choose_prompts, tokenise, trace_circuits
from circuitdrift.circuits.files import load_circuits, save_circuits
from circuitdrift.core import paths
from circuitdrift.core.files import replacing, write_json
from circuitdrift.core.prompts import read_prompts
from circuitdrift.core.study import BASE, Run, checkpoints_in, derived_seed, feature_name
from circuitdrift.core.tokens import load_tokenizer
from circuitdrift.models.loading import load_model, prepare_torch
from circuitdrift.models.lora import adapted, randomised
from circuitdrift.models.variants import choose_planted, planting

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from circuitdrift.params import Params


def run(params: Params, run_name: str) -> None:
    """Trace the base model (``base``) or a run's checkpoints, nulls and positive control."""
    prepare_torch(params.compute)
    with replacing(paths.attributions(run_name)) as directory:
        if run_name == BASE:
            _trace_base(params, directory)
        else:
            _trace_run(params, run_name, directory)


def _trace_base(params: Params, directory: Path) -> None:
    chosen = choose_prompts(read_prompts(paths.PROMPTS), params.attribution)
    base = load_model(paths.BASE_MODEL)
    prompts = tokenise(list(chosen), base, load_tokenizer(paths.BASE_MODEL))
    graphs_of = {prompt.id for prompt, with_graph in chosen.items() if with_graph}
    circuits = trace_circuits(base, prompts, params.attribution, graphs_of)
    save_circuits(directory / paths.attribution(BASE, BASE).name, circuits)


def _trace_run(params: Params, run_name: str, directory: Path) -> None:
    adapters = checkpoints_in(paths.CHECKPOINTS / run_name)
    circuits = load_circuits(paths.attribution(BASE, BASE))
    prompts = [circuit.prompt for circuit in circuits]
    graphs_of = {circuit.prompt.id for circuit in circuits if circuit.graph is not None}
    base = load_model(paths.BASE_MODEL)
    n_random = params.nulls.random_lora
    last = paths.attribution(run_name, adapters[-1].name)
    for place, with_graphs in track(
        _in_turn(base, run_name, adapters, n_random),
        description=f"circuits of {run_name}",
        total=len(adapters) * (1 + n_random),
    ):
        circuits = trace_circuits(
            base, prompts, params.attribution, graphs_of if with_graphs else ()
        )
        save_circuits(directory / place.relative_to(paths.attributions(run_name)), circuits)
        if place == last:
            _trace_planted(params, run_name, last.stem, base, directory)


def _in_turn(
    base: PreTrainedModel, run_name: str, adapters: Sequence[Path], n_random: int
) -> Iterator[tuple[Path, bool]]:
    """Make the base each checkpoint and each random adapter in turn.

    With each, where its circuits go, and whether graphs are wanted.
    """
    for adapter in adapters:
        with adapted(base, adapter):
            yield paths.attribution(run_name, adapter.name), True
        for draw in range(n_random):
            with randomised(base, adapter, derived_seed(run_name, adapter.name, draw)):
                place = paths.random_attribution(run_name, draw, adapter.name)
                yield place, adapter == adapters[-1]


def _trace_planted(
    params: Params, run_name: str, checkpoint: str, model: PreTrainedModel, directory: Path
) -> None:
    """Trace the discovery prompts once more with one of the strong neurons scaled."""
    planted, home = params.nulls.planted, paths.attributions(run_name)
    # As they were saved, to half precision: that is what the comparison will read.
    circuits = load_circuits(directory / paths.attribution(run_name, checkpoint).name)
    discovery = [circuit for circuit in circuits if circuit.prompt.role == "discovery"]
    # Summed over positions, mean over prompts ``[n_layers, d_mlp]``.
    summed = [torch.from_numpy(circuit.effects).sum(1) for circuit in discovery]
    mean_effect = torch.stack(summed).mean(0)
    layer, feature = choose_planted(
        mean_effect, min(planted.among, mean_effect.numel()), Run.parse(run_name).seed
    )
    with planting(model, layer, feature, planted.scale):
        prompts = [circuit.prompt for circuit in discovery]
        traced = trace_circuits(model, prompts, params.attribution)
    save_circuits(
        directory / paths.planted_attribution(run_name, checkpoint).relative_to(home), traced
    )
    write_json(
        directory / paths.planted_description(run_name).relative_to(home),
        {
            "checkpoint": checkpoint,
            "layer": layer,
            "feature": feature,
            "name": feature_name(layer, feature),
            "scale": planted.scale,
        },
    )
