"""Measures as the page and the figures write them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from circuitdrift.markdown import MISSING, number, percent
from circuitdrift.scaling import names as of

LABELS = {
    of.ACCURACY: "accuracy",
    of.P_ANSWER: "p(answer)",
    of.LOSS: "training loss",
    of.DRIFT: "drift of task prompts",
    of.DRIFT_CONTROL: "drift of control prompts",
    of.DRIFT_RANDOM: "drift under random adapters",
    of.DRIFT_BEYOND: "drift beyond random adapters",
    of.OVERLAP_BEYOND: "overlap beyond chance",
    of.OVERLAP_CORRECTED: "chance-corrected overlap",
    of.RECRUITED: "recruited nodes",
    of.MOVED: "moved features",
    of.MOVED_RANDOM: "moved features under random adapters",
    of.MOVED_BEYOND: "moved features beyond random",
    of.CMD: "CMD of its own circuits",
    of.CMD_RANDOM: "CMD of random circuits",
    of.FORGETTING: "forgetting",
    of.FALSE_POSITIVE: "probability on unseen words",
}
COUNTS = {of.RECRUITED, of.MOVED, of.MOVED_RANDOM, of.MOVED_BEYOND, of.GROWN, of.SHRUNK, of.TESTED}


def label(measure: str) -> str:
    return LABELS[measure]


def headed(text: str) -> str:
    """With a capital in front, and the rest as it is: CMD stays CMD."""
    return text[:1].upper() + text[1:]


def amount(value: float, measure: str, sign: bool = False) -> str:
    """A count without decimals, anything else with three; a dash for what is not defined."""
    whole = measure in COUNTS and math.isfinite(value)
    text = f"{value:.0f}" if whole else number(value)
    return f"+{text}" if sign and value > 0 else text


def shown(row: Mapping[str, Any]) -> str:
    """``mean [low, high]`` of a row with its measure; no brackets where there is no interval."""
    return _text(row, sign=False)


def signed(row: Mapping[str, Any]) -> str:
    """As :func:`shown`, of a difference: what rose has a plus."""
    return _text(row, sign=True)


def _text(row: Mapping[str, Any], sign: bool) -> str:
    measure = row["measure"]
    text = amount(row["mean"], measure, sign)
    if text == MISSING or math.isnan(row["low"]):
        return text
    low, high = (amount(row[end], measure, sign) for end in ("low", "high"))
    return f"{text} [{low}, {high}]"


def share(value: float) -> str:
    """In percent; a dash for what is not defined."""
    return percent(value) if math.isfinite(value) else MISSING


def plain(value: Any) -> str:
    """A value of params.yaml: 3.0 as 3, 0.0005 as 0.0005."""
    return f"{value:g}" if isinstance(value, float) else str(value)
