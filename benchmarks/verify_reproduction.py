"""The study run again in clean clones, and everything that came out otherwise.

    python benchmarks/verify_reproduction.py [--profile tiny] [--variations elsewhere ...]
        [--reference DIR] [--work DIR]

Every variation runs the pipeline from nothing, without run cache, in a clone of its own, and is
held against a reference: one more clean clone, or a finished study that is named. Writes
reports/reliability/reproduction.csv, where the rows of other profiles and variations stay. Exits
with 1 if anything differs that must not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from reliability.clones import PROFILES, CommandError
from reliability.page import write_page
from reliability.reproduction_report import BEYOND, COMMITTED, put_rows, rows_of
from reliability.studies import Comparison, compare_locks, compare_studies
from reliability.tolerance import Tolerance
from reliability.variations import REFERENCE, VARIATIONS, compare, finished_clone
from rich.console import Console

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    console = Console(soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="circuit-drift-") as temporary:
        try:
            good = verify(options, options.work or Path(temporary), console)
        except CommandError as error:
            console.print(str(error), markup=False)
            return 1
    write_page(options.reports)
    return 0 if good else 1


def verify(options: argparse.Namespace, work: Path, console: Console) -> bool:
    """Run the reference and the variations; whether all came out as it must.

    Raises:
        CommandError: if a stage fails.
    """
    settings, good = PROFILES[options.profile], True
    reference = options.reference
    if reference is None:
        reference = finished_clone(REFERENCE, options.root, work / "reference", settings).root
        if options.profile == "default":
            good &= report(console, options, COMMITTED, committed(reference, options.root))
    for name in options.variations:
        variation = VARIATIONS[name]
        varied = finished_clone(variation, options.root, work / name, settings).root
        found = compare(variation, reference, varied)
        good &= report(console, options, name, found, variation.tolerance)
    return good


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", choices=PROFILES, default="default")
    parser.add_argument("--variations", nargs="*", choices=VARIATIONS, default=list(VARIATIONS))
    parser.add_argument("--root", type=Path, default=ROOT, help="the study that is cloned")
    parser.add_argument("--reference", type=Path, help="a finished study instead of a clean clone")
    parser.add_argument("--work", type=Path, help="where clones are made, kept and taken up again")
    parser.add_argument("--reports", type=Path, default=ROOT / "reports" / "reliability")
    return parser.parse_args(arguments)


def committed(reference: Path, root: Path) -> list[Comparison]:
    """The reports and the dvc.lock that git keeps, against what a clean clone made."""
    reports = [each for each in compare_studies(reference, root) if each.artifact[:8] == "reports/"]
    return [*reports, compare_locks(reference, root, in_order=True)]


def report(
    console: Console,
    options: argparse.Namespace,
    name: str,
    found: list[Comparison],
    tolerance: Tolerance | None = None,
) -> bool:
    """Write the rows of a variation, say what differs first, and whether it may."""
    rows = rows_of(options.profile, name, found, tolerance)
    put_rows(options.reports / "reproduction.csv", rows)
    differing = [each for each in found if not each.identical]
    console.print(f"{name}: {len(found) - len(differing)} of {len(found)} artifacts identical")
    if differing:
        first = differing[0]
        console.print(f"  first to differ: {first.artifact}, {first.located[0]}", markup=False)
        largest = max(differing, key=lambda each: each.relative or 0.0)
        if largest.relative:
            console.print(
                f"  largest: {largest.relative:.2g} of the values' size, in {largest.artifact}"
            )
    too_far = rows.loc[rows["outcome"] == BEYOND, "artifact"].tolist()
    if too_far:
        console.print(f"  beyond the tolerance: {', '.join(too_far)}", markup=False)
    return not too_far if tolerance else not differing


if __name__ == "__main__":
    sys.exit(main())
