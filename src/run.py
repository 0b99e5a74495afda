"""Entry of the DVC stages: ``python src/run.py STAGE [RUN]``.

It runs the code of the checkout that it stands in, not an installed copy, so that an experiment
in DVC's temporary directory runs its own snapshot. Everything that can be refused is refused
here, before a stage imports torch or loads a model.
"""

from __future__ import annotations

import gc
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

HERE = Path(__file__).resolve().parent
OF_THE_BASE = {("evaluate", "base"), ("attribute", "base")}
sys.path.insert(0, str(HERE))


def main(arguments: list[str]) -> int:
    from circuitdrift.check import check_study, run_named
    from circuitdrift.core.errors import InputError
    from circuitdrift.core.kernels import set_kernels

    stages = sorted(module.name for module in iter_modules([str(HERE / "circuitdrift/stages")]))
    if not arguments or arguments[0] not in stages:
        print(f"usage: python src/run.py STAGE [RUN]\nstages: {', '.join(stages)}", file=sys.stderr)
        return 2
    stage, *names = arguments
    try:
        params = check_study(Path.cwd())
        for name in names:
            if (stage, name) not in OF_THE_BASE:
                run_named(name, params)
        set_kernels(params.compute)
        # Importing torch and transformers makes objects that stay: looking for dead ones among them
        # as often as Python does takes a fifth of the time.
        gc.set_threshold(100_000)
        import_module(f"circuitdrift.stages.{stage}").run(params, *names)
    except InputError as error:
        print(f"{stage}: refused\n{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
