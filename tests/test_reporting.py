from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from matplotlib import pyplot as plt

from circuitdrift import figures
from circuitdrift.config import Params, load_params
from circuitdrift.report_tables import Evidence
from circuitdrift.reporting import render_report, study_metrics
from circuitdrift.summaries import change_map, drift_from_base
from circuitdrift.validation import read_yaml

ROOT = Path(__file__).parent.parent
CHECKPOINTS = ["025", "050", "075", "100"]
HEADLINE = {
    "top1": 0.0,
    "p": 0.125,
    "log_odds": -2.0,
    "target": 0.5,
    "reverse_accuracy": 0.25,
    "false_positive": 0.0625,
    "control_loss": 3.0,
}


@pytest.fixture(scope="module")
def params() -> Params:
    shipped = load_params(ROOT / "params.yaml")
    one_run = shipped.runs.model_copy(update={"conditions": ("mapped",), "seeds": (0,)})
    return shipped.model_copy(update={"runs": one_run})


def drift_table() -> pd.DataFrame:
    rows = []
    for before, after, drift in [
        *(("base", name, 0.1 * (index + 1)) for index, name in enumerate(CHECKPOINTS)),
        ("025", "050", 0.1),
        ("050", "075", 0.1),
        ("075", "100", 0.1),
    ]:
        for role, share in (("discovery", 1.0), ("control", 0.5)):
            for prompt in range(3):
                measures = dict.fromkeys(
                    [
                        "signed_drift",
                        "influence_drift",
                        "spearman",
                        "node_jaccard",
                        "nodes_added",
                        "nodes_removed",
                        "edge_jaccard",
                        "edges_added",
                        "edges_removed",
                        "replacement_from",
                        "replacement_to",
                        "completeness_from",
                        "completeness_to",
                        "error_mass_from",
                        "error_mass_to",
                    ],
                    0.5,
                )
                rows.append(
                    {
                        "run": "mapped-0",
                        "condition": "mapped",
                        "seed": 0,
                        "from": before,
                        "to": after,
                        "prompt": f"{role}-{prompt}",
                        "role": role,
                        "drift": share * drift + 0.001 * prompt,
                        **measures,
                    }
                )
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def evidence(params: Params) -> Evidence:
    places = pd.DataFrame(
        {
            "from": "base",
            "to": "100",
            "role": "discovery",
            "layer": [0, 1],
            "segment": ["last", "word"],
            "gained": [1.0, 3.0],
            "lost": [2.0, 0.0],
            "before": [5.0, 5.0],
        }
    )
    features = pd.DataFrame(
        {
            "run": ["mapped-0"],
            "from": ["base"],
            "to": ["100"],
            "feature": ["L1/F3"],
            "effect_from": [0.0],
            "effect_to": [1.5],
            "change": [1.5],
            "agreement": [1.0],
        }
    )
    accuracy = dict(zip(["base", *CHECKPOINTS], [0.25, 0.5, 0.75, 0.875, 1.0], strict=True))
    return Evidence(
        headlines={
            "mapped-0": {
                name: {**HEADLINE, "accuracy": value, "top1": value * (name != "base")}
                for name, value in accuracy.items()
            }
        },
        drift=drift_table(),
        features=features,
        checkpoint_loss=pd.DataFrame(
            {"run": "mapped-0", "checkpoint": CHECKPOINTS, "loss": [8.0, 4.0, 2.0, 1.0]}
        ),
        drift_summary=drift_from_base(drift_table(), params.report),
        change=change_map(places, "100"),
        original=read_yaml(ROOT / "data/original_study.yaml"),
    )


def test_the_report_states_what_the_tables_say(params: Params, evidence: Evidence) -> None:
    page = render_report(params, evidence, total_steps=21)
    assert "25 % of the time before training and 100 % after" in page
    assert "| 6.669 → 6.938 → 6.782 → 6.784 | 8.000 → 4.000 → 2.000 → 1.000" in page
    assert "not found: the loss fell" in page
    assert "task prompts drifted further than control prompts" in page
    assert "gained in layer 1 (word)" in page
    assert "lost in layer 0 (last)" in page
    assert "L1/F3" in page
    assert "Only the condition `mapped` was run" in page
    for name in ("understanding", "loss", "drift", "change_by_place"):
        assert f"(figures/{name}.png)" in page


def test_the_verdicts_turn_with_the_findings(params: Params, evidence: Evidence) -> None:
    unlearned = {
        name: {**values, "accuracy": 0.25, "top1": 0.0}
        for name, values in evidence.headlines["mapped-0"].items()
    }
    rising = evidence.checkpoint_loss.assign(loss=[1.0, 2.0, 4.0, 8.0])
    other = Evidence(
        **{
            **vars(evidence),
            "headlines": {"mapped-0": unlearned},
            "checkpoint_loss": rising,
        }
    )
    page = render_report(params, other, total_steps=21)
    assert "not found: the loss fell" not in page
    assert "not found: the mappings were learned" not in page
    assert page.count("found here too") == 3


def test_experiments_compare_by_few_numbers(params: Params, evidence: Evidence) -> None:
    found = study_metrics(params, evidence)
    assert found == {
        "accuracy": 1.0,
        "p_answer": 0.125,
        "loss": 1.0,
        "drift_task": 0.401,
        "drift_control": 0.201,
        "forgetting": 0.0,
    }


def test_figures_draw_every_row_they_are_given(evidence: Evidence) -> None:
    figures.use_style()
    drift = figures.drift_figure(evidence.drift_summary, CHECKPOINTS)
    lines = {container.get_label() for container in drift.axes[0].containers}
    assert lines == {
        "task prompts, trained on mapped",
        "control prompts, trained on mapped",
    }
    task = drift.axes[0].containers[0].lines[0]
    assert task.get_ydata().tolist() == pytest.approx([0.101, 0.201, 0.301, 0.401])
    change = figures.change_figure(evidence.change, ("start", "word", "last"))
    assert [axes.get_title() for axes in change.axes[:2]] == ["effect gained", "effect lost"]
    assert [label.get_text() for label in change.axes[0].get_xticklabels()] == ["word", "last"]
    plt.close("all")
