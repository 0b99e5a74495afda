"""What can be refused before any compute: the whole of params.yaml and the constraints."""

from __future__ import annotations

from pathlib import Path

from circuitdrift import paths
from circuitdrift.config import Params, load_params


def check_study(root: Path) -> Params:
    """Read params.yaml and the constraints below ``root`` and hold them against each other.

    Raises:
        InputError: naming every refused value.
    """
    return load_params(root / paths.PARAMS)
