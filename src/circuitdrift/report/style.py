"""The look of figures, numbers and tables, on the report's page and on the sweep's.

Colours are seaborn's colour-blind set; line style and marker repeat what colour says, so that a
figure also reads in greyscale.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    import jinja2
    from matplotlib.axes import Axes

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", "-.", ":")
NEUTRAL = "0.45"
MISSING = "-"


def use_style() -> None:
    """Set the look of all figures; sizes are for reading at half size."""
    import seaborn as sns

    sns.set_theme(
        context="talk",
        style="ticks",
        palette="colorblind",
        rc={
            "axes.spines.top": False,
            "axes.spines.right": False,
            "figure.constrained_layout.use": True,
            "legend.frameon": False,
            "svg.hashsalt": "circuit-drift",
        },
    )


def look(colour: int, style: int | None = None) -> dict[str, Any]:
    """Colour, marker and dashes of a line, as keywords of matplotlib.

    Args:
        style: which of the markers and dashes; None for those of the colour's number.
    """
    import seaborn as sns

    style = colour if style is None else style
    return {
        "color": sns.color_palette("colorblind")[colour % 10],
        "marker": MARKERS[style % len(MARKERS)],
        "linestyle": LINES[style % len(LINES)],
    }


def errorbars(axis: Axes, rows: pd.DataFrame, look: dict[str, Any], label: str) -> None:
    """Means with whiskers at ``at``; one whose interval is withheld has none."""
    if rows.empty:
        return
    lengths = np.stack([rows["mean"] - rows["low"], rows["high"] - rows["mean"]])
    whiskers = np.where(np.isfinite(lengths), np.maximum(lengths, 0), 0)
    axis.errorbar(rows["at"], rows["mean"], yerr=whiskers, label=label, capsize=4, **look)


def number(value: float | None) -> str:
    """Three decimals; a dash for what is not defined."""
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:.3f}"


def p_value(value: float | None) -> str:
    """Never 0: the smallest that is told apart is .0001."""
    if value is None or math.isnan(value):
        return MISSING
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def p_text(value: float | None) -> str:
    """``p = 0.0079``, or ``p < 0.0001``."""
    text = p_value(value)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def interval(value: Any, name: str = "mean") -> str:
    """``mean [low, high]`` of a row or a mapping; the mean alone where it has no interval."""
    if math.isnan(value["low"]):
        return number(value[name])
    return f"{number(value[name])} [{number(value['low'])}, {number(value['high'])}]"


def percent(value: float | None) -> str:
    """A share; a dash for what is not defined."""
    return MISSING if value is None or math.isnan(value) else f"{round(100 * value)} %"


def percent_interval(value: Any) -> str:
    """``62 % [50, 74]`` of a row or a mapping with estimate, low and high; without what is not."""
    if math.isnan(value["low"]):
        return percent(value["estimate"])
    low, high = (round(100 * value[end]) for end in ("low", "high"))
    return f"{percent(value['estimate'])} [{low}, {high}]"


def checkpoint(name: str) -> str:
    """``025`` as ``25 %`` of training, the base model as it is."""
    return f"{int(name)} %" if name.isdigit() else name


def literal(text: Any) -> str:
    """Text of any kind, such as tokens of a vocabulary, that Markdown shall show as it is."""
    if not isinstance(text, str):
        return MISSING
    return re.sub(r"([\\`*_{}\[\]<>|#~&$])", r"\\\1", text)


def markdown(table: pd.DataFrame) -> str:
    """A table, numbers with three decimals to the right; empty text for a table without rows."""
    if table.empty:
        return ""
    aligned = ["right" if _numeric(table[column]) else "left" for column in table]
    shown = table.astype(object).map(_cell)
    return str(shown.to_markdown(index=False, disable_numparse=True, colalign=aligned))


def _numeric(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return number(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return MISSING if value is None or value is pd.NA else str(value)


def page_template(path: Path) -> jinja2.Template:
    """A page's template, with the filters that show numbers as its tables do."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(path.parent),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # the page is Markdown, not HTML
    )
    filters = (number, interval, percent, percent_interval, checkpoint, p_text, p_value)
    environment.filters.update({filter_.__name__: filter_ for filter_ in filters})
    return environment.get_template(path.name)
