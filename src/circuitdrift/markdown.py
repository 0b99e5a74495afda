"""Numbers and tables as Markdown shows them."""

from __future__ import annotations

import math
import re
from typing import Any

import pandas as pd

MISSING = "-"


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
    said = p_value(value)
    return f"p {said}" if said.startswith("<") else f"p = {said}"


def interval(value: Any) -> str:
    """``mean [low, high]`` of a row or a mapping with these three."""
    if math.isnan(value["mean"]):
        return MISSING
    return f"{number(value['mean'])} [{number(value['low'])}, {number(value['high'])}]"


def percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def literal(text: Any) -> str:
    """Text of any kind, such as tokens of a vocabulary, that Markdown shall show as it is."""
    if not isinstance(text, str):
        return MISSING
    return re.sub(r"([\\`*_{}\[\]<>|#~&$])", r"\\\1", text)


def with_intervals(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """``mean``, ``low`` and ``high`` as one column of text."""
    texts = [interval(row) for row in table[["mean", "low", "high"]].to_dict("records")]
    place = list(table.columns).index("mean")
    rest = table.drop(columns=["mean", "low", "high"])
    rest.insert(place, name, pd.Series(texts, index=table.index, dtype=object))
    return rest


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
