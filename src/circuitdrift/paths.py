"""Where every artifact lives, relative to the repository root. Nothing here touches the disk."""

from __future__ import annotations

from pathlib import Path

from circuitdrift.identifiers import BASE, random_change

PARAMS = Path("params.yaml")
SWEEP = Path("sweep.yaml")
CONSTRAINTS = Path("data/constraints.yaml")
ORIGINAL_STUDY = Path("data/original_study.yaml")
DATASET = Path("data/dataset")
PROMPTS = DATASET / "prompts.jsonl"
BASE_MODEL = Path("models/base")
CHECKPOINTS = Path("models/checkpoints")
ATTRIBUTIONS = Path("data/attributions")
REPORTS = Path("reports")
TABLES = REPORTS / "tables"
METRICS = REPORTS / "metrics"
FIGURES = REPORTS / "figures"
TRAINING_LOGS = REPORTS / "training"
SCALING = REPORTS / "scaling"
EVALUATION_TABLES = TABLES / "evaluation"
EVALUATION_METRICS = METRICS / "evaluation"
DRIFT_TABLE = TABLES / "drift.csv"
PLACE_TABLE = TABLES / "change_by_place.csv"
FEATURE_TABLE = TABLES / "changed_features.csv"
OVERLAP_TABLE = TABLES / "overlap.csv"
BETWEEN_RUNS_TABLE = TABLES / "between_runs.csv"
RECRUITED_TABLE = TABLES / "recruited.csv"
RECRUITMENT_NULLS_TABLE = TABLES / "recruitment_nulls.csv"
RANDOM_MODEL_TABLE = TABLES / "random_models.csv"
MOVED_FEATURE_TABLE = TABLES / "moved_features.csv"
POSITIVE_CONTROL_TABLE = TABLES / "positive_control.csv"
VALIDATION_TABLES = TABLES / "validation"
LORA_NORM_TABLES = TABLES / "lora_norms"
MAPPING_TABLE = TABLES / "mapping.csv"
MAPPING_PLACE_TABLE = TABLES / "mapping_by_place.csv"
OVERLAP_SUMMARY_TABLE = TABLES / "overlap_summary.csv"
FAITHFULNESS_SUMMARY_TABLE = TABLES / "faithfulness_summary.csv"
TRANSFER_SUMMARY_TABLE = TABLES / "transfer_summary.csv"
PATCHING_SUMMARY_TABLE = TABLES / "patching_summary.csv"
SPECIFICITY_SUMMARY_TABLE = TABLES / "specificity_summary.csv"
ABLATION_RANK_SUMMARY_TABLE = TABLES / "ablation_rank_summary.csv"
BASELINES_TABLE = TABLES / "baselines.csv"
CLAIMS_TABLE = TABLES / "claims.csv"
VERDICTS = METRICS / "verdicts.json"
LOSS_TABLE = TABLES / "loss.csv"
UNDERSTANDING_TABLE = TABLES / "understanding.csv"
DRIFT_SUMMARY_TABLE = TABLES / "drift_summary.csv"
DRIFT_METRICS = METRICS / "drift.json"
STUDY_METRICS = METRICS / "study.json"
REPORT = REPORTS / "report.md"


def training_examples(condition: str) -> Path:
    return DATASET / f"train_{condition}.jsonl"


def checkpoint(run: str, checkpoint: str) -> Path:
    """The PEFT adapter directory of one checkpoint."""
    return CHECKPOINTS / run / checkpoint


def attributions(run: str) -> Path:
    """Directory of a run's attributions; ``base`` has one of its own."""
    return ATTRIBUTIONS / run


def attribution(run: str, checkpoint: str) -> Path:
    return attributions(run) / f"{checkpoint}.safetensors"


def random_attribution(run: str, draw: int, checkpoint: str) -> Path:
    """Of a random adapter with the norms of ``checkpoint``."""
    return attributions(run) / random_change(draw) / f"{checkpoint}.safetensors"


def planted_attribution(run: str, checkpoint: str) -> Path:
    """Of ``checkpoint`` with a planted change."""
    return attributions(run) / "planted" / f"{checkpoint}.safetensors"


def planted_description(run: str) -> Path:
    """Which change was planted."""
    return attributions(run) / "planted" / "planted.json"


def random_model_attribution(draw: int) -> Path:
    """Of a randomly initialised model of the base's architecture."""
    return attributions(BASE) / f"random-model-{draw}.safetensors"


def training_log(run: str) -> Path:
    """Directory that DVCLive writes a run's loss per step to."""
    return TRAINING_LOGS / run


def training_loss(run: str) -> Path:
    """DVCLive's table of a run's loss, step by step, tab-separated."""
    return training_log(run) / "plots" / "metrics" / "loss.tsv"


def evaluation_table(run: str) -> Path:
    return EVALUATION_TABLES / f"{run}.csv"


def lora_norms(run: str) -> Path:
    return LORA_NORM_TABLES / f"{run}.csv"


def validation_tables(run: str) -> Path:
    """Directory of a run's intervention tables."""
    return VALIDATION_TABLES / run


def evaluation_metrics(run: str) -> Path:
    return EVALUATION_METRICS / f"{run}.json"
