"""Stage ``compare``: how far circuits move, against chance, and what moves with the mapping."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.progress import track

from circuitdrift import paths
from circuitdrift.artifacts import read_json, write_json, write_table
from circuitdrift.circuit_files import load_circuits
from circuitdrift.contrasts import MAPPED, SHUFFLED, Contrast, FeatureEffects
from circuitdrift.dataset import read_prompts
from circuitdrift.decoders import decoder_tokens
from circuitdrift.errors import InputError, Problem
from circuitdrift.identifiers import BASE, Run
from circuitdrift.leftovers import remove_other_runs
from circuitdrift.models.loading import load_model, load_tokenizer, use_threads
from circuitdrift.moved_features import moved_features
from circuitdrift.recruited_table import COLUMNS, recruited_table
from circuitdrift.recruitment import FoundFeatures, find_features
from circuitdrift.study_comparison import StudyComparison, headline

if TYPE_CHECKING:
    from circuitdrift.config.params import Params

N_TOKENS = 5


def run(params: Params) -> None:
    """Write all tables of comparisons.

    Raises:
        InputError: if a run has no attributions, or not those of the others' checkpoints.
    """
    remove_other_runs(paths.ATTRIBUTIONS, params.runs.all)
    use_threads(1)  # prompts are compared side by side, and torch's threads would get in their way
    effects = _compare(params)
    use_threads(params.compute.threads)
    write_table(paths.MOVED_FEATURE_TABLE, moved_features(effects, params.compare))
    _recruit(params, effects)


def _compare(params: Params) -> FeatureEffects:
    """Write the tables of drift and overlap, and hand on what the search for features needs.

    That is a tenth of what was read: the rest is let go before a model is loaded.
    """
    study = _read(params)
    drift = study.drift()
    write_table(paths.DRIFT_TABLE, drift)
    write_table(paths.PLACE_TABLE, study.places())
    write_table(paths.FEATURE_TABLE, study.changed_features())
    write_table(paths.BETWEEN_RUNS_TABLE, study.between_runs())
    write_table(paths.POSITIVE_CONTROL_TABLE, study.positive_control())
    write_table(paths.RANDOM_MODEL_TABLE, study.random_models())
    write_table(paths.OVERLAP_TABLE, study.overlaps(params.statistics.seed))
    write_json(paths.DRIFT_METRICS, headline(drift))
    return study.effects


def _read(params: Params) -> StudyComparison:
    """Read every file of circuits once, in the order of training."""
    prompts = {prompt.id: prompt for prompt in read_prompts(paths.PROMPTS)}
    base = load_circuits(paths.attribution(BASE, BASE))
    study = StudyComparison(base, prompts, params.compare, params.compute.threads)
    for draw, path in enumerate(_existing(paths.random_model_attribution)):
        study.add_random_model(draw, load_circuits(path))
    for checkpoint in _checkpoints(params.runs.all):
        for member in track(params.runs.all, description=f"comparing circuits at {checkpoint}"):
            path = paths.attribution(member.name, checkpoint)
            study.add_checkpoint(member, checkpoint, load_circuits(path))
            for draw, path in enumerate(_random_files(member, checkpoint)):
                study.add_random(member, draw, checkpoint, load_circuits(path))
            _add_planted(study, member, checkpoint)
        study.compare_runs(checkpoint)
    return study


def _checkpoints(runs: tuple[Run, ...]) -> list[str]:
    """The checkpoints of every run, the earliest first.

    Raises:
        InputError: if there are none, or if runs differ in them.
    """
    found = {
        run.name: sorted(file.stem for file in paths.attributions(run.name).glob("*.safetensors"))
        for run in runs
    }
    first = next(iter(found.values()))
    for name, checkpoints in found.items():
        if not checkpoints or checkpoints != first:
            raise InputError(
                Problem(
                    where=paths.attributions(name).as_posix(),
                    got=checkpoints,
                    rule=f"every run has the same checkpoints, here {first}",
                    remedy=f"run `dvc repro attribute@{name}`",
                )
            )
    return first


def _random_files(run: Run, checkpoint: str) -> Iterator[Path]:
    """The circuits of random adapters beside a checkpoint, draw by draw."""
    return _existing(lambda draw: paths.random_attribution(run.name, draw, checkpoint))


def _existing(path_of: Callable[[int], Path]) -> Iterator[Path]:
    """The files of draws 0, 1, ... as far as there are any."""
    return takewhile(Path.is_file, map(path_of, count()))


def _add_planted(study: StudyComparison, run: Run, checkpoint: str) -> None:
    """Compare the planted change with the checkpoint that it was planted in, if it is this one."""
    description = paths.planted_description(run.name)
    if description.is_file() and (planted := read_json(description))["checkpoint"] == checkpoint:
        path = paths.planted_attribution(run.name, checkpoint)
        study.add_planted(run, planted, load_circuits(path))


def _recruit(params: Params, effects: FeatureEffects) -> None:
    """Find the features that `mapped` moves and `shuffled` does not, at the last checkpoint."""
    settings, statistics = params.compare, params.statistics
    table = pd.DataFrame(columns=COLUMNS)
    searches: list[dict[str, Any]] = []
    discovery, evaluation = effects.mapping("discovery"), effects.mapping("evaluation")
    if discovery is not None and evaluation is not None:
        found = find_features(discovery, settings, statistics)
        searches.append(_described(f"{MAPPED} vs {SHUFFLED}", discovery, found))
        table = recruited_table(
            found,
            discovery,
            evaluation,
            prompts=[effects.prompts[index].id for index in effects.of_role("discovery")],
            tokens=_tokens(found),
            settings=statistics,
        )
    for name, null in track(effects.nulls("discovery"), description="comparing like with like"):
        searches.append(_described(name, null, find_features(null, settings, statistics)))
    write_table(paths.RECRUITED_TABLE, table)
    columns = ["comparison", "n_a", "n_b", "n_tested", "n_reliable", "n_found"]
    write_table(paths.RECRUITMENT_NULLS_TABLE, pd.DataFrame(searches, columns=columns))


def _described(name: str, contrast: Contrast, found: FoundFeatures) -> dict[str, Any]:
    return {
        "comparison": name,
        "n_a": len(contrast.a),
        "n_b": len(contrast.b),
        "n_tested": found.n_tested,
        "n_reliable": found.n_reliable,
        "n_found": len(found.words),
    }


def _tokens(found: FoundFeatures) -> dict[tuple[int, int], tuple[str, str]]:
    """What the features promote and suppress; the base model is loaded only if there are any."""
    features = list(zip(found.layers.tolist(), found.features.tolist(), strict=True))
    if not features:
        return {}
    model, tokenizer = load_model(paths.BASE_MODEL), load_tokenizer(paths.BASE_MODEL)
    return decoder_tokens(model, tokenizer, features, N_TOKENS)
