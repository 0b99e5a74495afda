"""All of params.yaml, read and checked."""

from __future__ import annotations

from pathlib import Path

from circuitdrift.config.attribution import Attribution, Nulls
from circuitdrift.config.base import Base
from circuitdrift.config.compare import Compare
from circuitdrift.config.compute import Compute
from circuitdrift.config.dataset import Dataset
from circuitdrift.config.evaluate import Evaluate
from circuitdrift.config.runs import Runs
from circuitdrift.config.section import Section
from circuitdrift.config.statistics import Statistics
from circuitdrift.config.train import Train
from circuitdrift.config.validation import Validation
from circuitdrift.config.verdicts import Verdicts
from circuitdrift.validation import read_yaml, validate


class Params(Section):
    """All of params.yaml."""

    compute: Compute
    runs: Runs
    base: Base
    dataset: Dataset
    train: Train
    evaluate: Evaluate
    attribution: Attribution
    nulls: Nulls
    compare: Compare
    validation: Validation
    statistics: Statistics
    verdicts: Verdicts


def load_params(path: Path) -> Params:
    """Read and check params.yaml.

    Raises:
        InputError: naming the file, each refused key, its value, the rule and the remedy.
    """
    return validate(Params, read_yaml(path), source=path.name)
