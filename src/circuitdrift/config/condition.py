"""The conditions of training data that params.yaml may name."""

from __future__ import annotations

from typing import Literal

Condition = Literal["mapped", "shuffled", "unrelated"]
