"""Stage ``attribute@run``: the circuit of every chosen prompt at each checkpoint of a run.

``attribute base`` chooses the prompts, tokenises them and traces them in the base model; every
run's checkpoints are traced on the prompts of the base's circuits. On discovery prompts, where
nodes are chosen, the last checkpoint is, of the runs that teach an assignment. Beside the last
checkpoint of some runs stand random adapters of its norms, which say what any change of that size
does.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import track

from circuitdrift.attribution.trace import choose_prompts, tokenise, trace_circuits
from circuitdrift.circuits.files import load_circuits, save_circuits
from circuitdrift.core import paths
from circuitdrift.core.files import replacing
from circuitdrift.core.prompts import read_prompts
from circuitdrift.core.study import ASSIGNED, BASE, Run, checkpoints_in, derived_seed
from circuitdrift.core.tokens import load_tokenizer
from circuitdrift.models.loading import load_model, prepare_torch
from circuitdrift.models.lora import adapted, randomised

if TYPE_CHECKING:
    from circuitdrift.params import Params


def run(params: Params, run_name: str) -> None:
    """Trace the base model (``base``) or a run's checkpoints and nulls."""
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
    run, settings = Run.parse(run_name), params.attribution
    adapters = checkpoints_in(paths.CHECKPOINTS / run_name)
    of_base = load_circuits(paths.attribution(BASE, BASE))
    compared = [prompt for prompt in of_base.prompts if prompt.role != "discovery"]
    graphs_of: set[str] = set()
    if run.seed in settings.graph_seeds:
        graphs_of = {circuit.prompt.id for circuit in of_base if circuit.graph is not None}
    base, last = load_model(paths.BASE_MODEL), adapters[-1]
    at_last = of_base.prompts if run.condition in ASSIGNED else compared
    for adapter in track(adapters, description=f"circuits of {run_name}"):
        with adapted(base, adapter):
            prompts = at_last if adapter == last else compared
            circuits = trace_circuits(base, prompts, settings, graphs_of)
        save_circuits(directory / paths.attribution(run_name, adapter.name).name, circuits)
    n_random = params.nulls.random_lora if run.seed in params.nulls.seeds else 0
    for draw in range(n_random):
        with randomised(base, last, derived_seed(run_name, last.name, draw)):
            circuits = trace_circuits(base, compared, settings)
        place = paths.random_attribution(run_name, draw, last.name)
        save_circuits(directory / place.relative_to(paths.attributions(run_name)), circuits)
