"""What is refused before any compute: params.yaml, the constraints, and both held together."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, count
from operator import attrgetter
from pathlib import Path

from circuitdrift.core import paths
from circuitdrift.core.errors import InputError, Problem
from circuitdrift.core.files import read_json
from circuitdrift.core.prompts import Example
from circuitdrift.core.study import Run, checkpoint_steps, total_steps
from circuitdrift.data.constraints import Constraints, load_constraints, make_prompts
from circuitdrift.data.examples import refused_count, run_examples
from circuitdrift.data.pool import training_pool
from circuitdrift.params import OWN, Params, load_params

CPU_FLAGS = Path("/proc/cpuinfo")  # Linux's

# A key that counts some of the prompts -> the key that counts all of them.
PART_OF = {
    "attribution.graph_prompts_per_word": "attribution.near_prompts_per_word",
    "attribution.graph_control_prompts": "attribution.control_prompts",
    "intervene.circuit_prompts_per_word": "attribution.near_prompts_per_word",
}


def check_study(root: Path) -> Params:
    """Params of the study at ``root``, held against its constraints."""
    params = load_params(root / paths.PARAMS)
    check_params(params, root, source=paths.PARAMS.name)
    return params


def check_base(params: Params, root: Path) -> None:
    """Hold the base model's config and tokenizer, where they are at hand, against the study.

    No weight is read: what only they can tell, import_base finds.

    Raises:
        InputError: for a model that cannot be read or followed, and for texts and answers that its
            tokenizer does not give as they are meant.
    """
    from circuitdrift.core.tokens import check_tokens, load_tokenizer
    from circuitdrift.importing.directory import model_files, readable_config

    at_hand = root / paths.BASE_MODEL
    if params.base.model == OWN:
        at_hand = root / params.base.directory
        model_files(at_hand, f"base.directory {params.base.directory}")
    elif cached := _in_hub_cache(params.base.model):
        readable_config(cached, params.base.model)
    if params.base.model == OWN or _imported(params.base.model, at_hand):
        constraints = load_constraints(root / params.dataset.constraints)
        pool = training_pool(params, constraints, root)
        n = params.dataset.n_examples
        drawn = (run_examples(run, constraints, pool, n) for run in params.runs.all)
        trained = [*pool, *chain.from_iterable(drawn)]
        check_tokens(load_tokenizer(at_hand), make_prompts(constraints), trained)


def _in_hub_cache(model: str) -> Path | None:
    """The config of a model of the hub, where it was fetched before."""
    kind, _, place = model.partition(":")
    if kind != "hub":
        return None
    from huggingface_hub import try_to_load_from_cache

    name, revision = place.split("@")
    cached = try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(cached) if isinstance(cached, str) else None


def _imported(model: str, directory: Path) -> bool:
    """Whether models/base is this model of the catalogue or the hub."""
    if not (directory / "source.json").is_file():
        return False
    source = read_json(directory / "source.json")
    revision = source.get("revision")
    return model == (f"hub:{source['model']}@{revision}" if revision else source.get("model"))


def check_params(params: Params, root: Path, source: str) -> None:
    """Hold params against the constraints and the training sentences below ``root``.

    Raises:
        InputError: naming every refused value, with ``source`` in place of params.yaml.
    """
    constraints = load_constraints(root / params.dataset.constraints)
    pool = training_pool(params, constraints, root)
    problems = [*_misplaced(params.base.directory, root), *_problems(params, constraints, pool)]
    if problems:
        raise InputError(
            *(
                replace(problem, where=problem.where.replace(paths.PARAMS.name, source, 1))
                for problem in problems
            )
        )


def _problems(params: Params, constraints: Constraints, pool: list[Example]) -> Iterator[Problem]:
    if params.compute.kernels == "portable" and (processor := without_avx2()):
        rule = f"portable kernels are those of x86-64 with AVX2, and this is {processor}"
        remedy = "set native; `circuitdrift verify --reproduced` then tells how far results differ"
        yield Problem("params.yaml: compute.kernels", "portable", rule, remedy)
    counts = (
        refused_count(condition, constraints, pool, params.dataset.n_examples)
        for condition in params.runs.conditions
    )
    if problem := next(filter(None, counts), None):
        yield problem
    for key, most, whole in _limits(params, constraints):
        if (value := attrgetter(key)(params)) > most:
            rule = f"Input should be at most {most}, the number of {whole}"
            yield Problem(f"params.yaml: {key}", value, rule, "lower it, or raise that number")
    runs, tested = params.runs, params.intervene
    for key, value, among in (
        ("conditions", tested.conditions, runs.conditions),
        ("seeds", tested.seeds, runs.seeds),
    ):
        if untrained := [one for one in value if one not in among]:
            rule = f"Input should be among runs.{key}: {', '.join(map(str, among))}"
            yield Problem(f"params.yaml: intervene.{key}", untrained, rule)
    if params.verdicts.patched_nodes not in tested.patched_nodes:
        rule = f"Input should be one of intervene.patched_nodes: {list(tested.patched_nodes)}"
        yield Problem("params.yaml: verdicts.patched_nodes", params.verdicts.patched_nodes, rule)
    if "both-ways" in runs.conditions and params.train.loss_on == "answer":
        rule = "the condition both-ways trains on whole sentences: a reversed one ends in its word"
        yield Problem("params.yaml: train.loss_on", "answer", rule, "set sentence")
    yield from _same_steps(params)


def _misplaced(directory: str, root: Path) -> Iterator[Problem]:
    """DVC takes ~ for a name, and no stage may read what it writes."""
    where = "params.yaml: base.directory"
    source, output = ((root / path).resolve() for path in (directory, paths.BASE_MODEL))
    if directory.startswith("~"):
        rule = "a path from the repository's root, or a whole one"
        yield Problem(where, directory, rule, f"write {Path(directory).expanduser()}")
    elif source.is_relative_to(output) or output.is_relative_to(source):
        rule = f"a directory apart from {paths.BASE_MODEL.as_posix()}, which the import writes"
        yield Problem(where, directory, rule, "move or copy the model")


def _same_steps(params: Params) -> Iterator[Problem]:
    """Checkpoints after one and the same step would be one result drawn as two."""
    train, n = params.train, params.dataset.n_examples
    total = total_steps(n, train.batch_size, train.epochs)
    if len(_steps(train.checkpoints, total)) < len(train.checkpoints):
        fewest = next(
            s for s in count(total) if len(_steps(train.checkpoints, s)) == len(train.checkpoints)
        )
        yield Problem(
            where="params.yaml: train.checkpoints",
            got=f"{list(train.checkpoints)} of {total} optimiser's steps",
            rule=f"each checkpoint comes after another step: at least {fewest} steps for these",
            remedy="more train.epochs, more dataset.n_examples, a smaller train.batch_size, "
            "or fewer checkpoints",
        )


def _steps(fractions: Sequence[float], total: int) -> set[int]:
    return set(checkpoint_steps(fractions, total).values())


def without_avx2() -> str | None:
    """What this processor is, if it cannot compute with portable kernels."""
    if (machine := platform.machine()).lower() not in ("x86_64", "amd64"):
        return machine
    flags = CPU_FLAGS.read_text() if CPU_FLAGS.is_file() else "avx2"
    return None if "avx2" in flags else f"{machine} without AVX2"


def _limits(params: Params, constraints: Constraints) -> Iterator[tuple[str, int, str]]:
    """A key, the most it may be, and what there is so many of."""
    types, file = constraints.types.values(), params.dataset.constraints
    for role in ("discovery", "near"):
        fewest = min(len(getattr(type_, role)) for type_ in types)
        prompts = f"{role} prompts for each word in {file}"
        yield f"attribution.{role}_prompts_per_word", fewest, prompts
    yield "attribution.control_prompts", len(constraints.control), f"control prompts in {file}"
    for part, whole in PART_OF.items():
        yield part, attrgetter(whole)(params), f"prompts that {whole} sets"


def run_named(name: str, params: Params) -> Run:
    """The run of the study that is called ``name``.

    Raises:
        InputError: if params.yaml has no such run.
    """
    runs = {run.name: run for run in params.runs.all}
    if name not in runs:
        rule = f"Input should be a run of the study: {', '.join(runs)}"
        raise InputError(Problem("params.yaml: runs", name, rule))
    return runs[name]
