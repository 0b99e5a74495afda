"""Entry of the DVC stages: ``python src/run.py STAGE [RUN]``.

It runs the code of the checkout that it stands in, not an installed copy, so that an experiment
in DVC's temporary directory runs its own snapshot. Everything that can be refused is refused
here, before a stage imports torch or loads a model.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))


def main(stage: str, *arguments: str) -> int:
    from circuitdrift.errors import InputError
    from circuitdrift.preflight import check_study

    try:
        params = check_study(Path.cwd())
        import_module(f"circuitdrift.stages.{stage}").run(params, *arguments)
    except InputError as error:
        print(f"{stage}: refused\n{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
