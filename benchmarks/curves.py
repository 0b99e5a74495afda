"""Figure of what attribution costs: seconds against nodes, tokens told apart, a panel per model.

    python benchmarks/curves.py [--out DIR]

Draws attribution.csv, which benchmarks/attribution.py writes, as attribution.png.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from circuitdrift.artifacts import replacing
from circuitdrift.figures.style import use_style

ENGINES = {"circuit_tracer_s": "circuit-tracer", "sweep_s": "sweep"}
LAYERS = {"gemma-3-270m": 18, "smollm2-135m": 30}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("reports/benchmarks"))
    arguments = parser.parse_args()
    plt.switch_backend("agg")
    use_style()
    figure = curves(pd.read_csv(arguments.out / "attribution.csv"))
    with replacing(arguments.out / "attribution.png") as partial:
        figure.savefig(partial, format="png", dpi=100, metadata={"Software": None})


def curves(table: pd.DataFrame) -> Figure:
    models = list(table["model"].unique())
    figure, panels = plt.subplots(1, len(models), figsize=(14, 6), sharey=True, squeeze=False)
    tokens = sorted(table["tokens"].unique())
    for axes, model in zip(panels[0], models, strict=True):
        for (column, engine), line in zip(ENGINES.items(), ("--", "-"), strict=True):
            for index, n_tokens in enumerate(tokens):
                rows = table[(table["model"] == model) & (table["tokens"] == n_tokens)]
                rows = rows.sort_values("nodes")
                axes.plot(
                    rows["nodes"],
                    rows[column],
                    linestyle=line,
                    marker="os^"[index % 3],
                    color=sns.color_palette()[index % 10],
                    label=f"{engine}, {n_tokens} tokens",
                )
        axes.set(
            xscale="log",
            yscale="log",
            xlabel="feature nodes",
            title=f"{model}, {LAYERS[model]} layers",
        )
    panels[0][0].set_ylabel("seconds per graph")
    panels[0][-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


if __name__ == "__main__":
    main()
