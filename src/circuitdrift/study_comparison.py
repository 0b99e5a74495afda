"""The comparisons of a whole study, taken up checkpoint by checkpoint.

Circuits are handed over in the order of training, and of each run only the latest are kept: all of
a study's would take gigabytes. Node sets, a quarter of their size, are kept of every checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from circuitdrift.circuit_pairs import (
    MeasuredCircuit,
    change_between,
    change_by_place,
    compare_pair,
    feature_changes,
    feature_effects,
    match_circuits,
    measure,
)
from circuitdrift.comparison import Array
from circuitdrift.config.compare import Compare
from circuitdrift.contrasts import FeatureEffects
from circuitdrift.dataset import Prompt
from circuitdrift.graph import Circuit
from circuitdrift.identifiers import BASE, TRAINED, Run, random_change
from circuitdrift.node_sets import NodeSets
from circuitdrift.overlap_table import overlap_table
from circuitdrift.positive_control import planted_rank

T = TypeVar("T")

KEY = ["run", "condition", "seed", "from", "to"]
PLACE = [*KEY, "role", "type", "layer", "segment"]
_PLACED_ROLES = ("discovery", "control")
_HEADLINES = ("drift", "signed_drift", "influence_drift", "error_mass_to")


class StudyComparison:
    """Tables of comparisons that grow with every checkpoint added.

    Attributes:
        prompts: of the circuits, in their order.
        effects: of every feature in the base model and each run's latest checkpoint.
    """

    def __init__(
        self,
        base: Sequence[Circuit],
        prompts: Mapping[str, Prompt],
        settings: Compare,
        n_threads: int,
    ) -> None:
        self.prompts = [prompts[circuit.prompt] for circuit in base]
        self._settings = settings
        self._thresholds = sorted(settings.thresholds)
        self._n_threads = n_threads
        self._base = self._measure(base)
        self.effects = FeatureEffects(self.prompts, feature_effects(self._base))
        self._latest: dict[Run, tuple[str, list[MeasuredCircuit]]] = {}
        self._sets: dict[Run, dict[str, list[NodeSets]]] = {}
        self._drift: list[dict[str, Any]] = []
        self._places: list[pd.DataFrame] = []
        self._features: list[pd.DataFrame] = []
        self._between: list[dict[str, Any]] = []
        self._planted: list[dict[str, Any]] = []
        self._random_models: list[dict[str, Any]] = []

    def add_checkpoint(self, run: Run, checkpoint: str, circuits: Sequence[Circuit]) -> None:
        """Compare a checkpoint with the base and with the run's checkpoint added before it.

        Raises:
            ValueError: if the circuits are of other prompts or targets than the base's.
        """
        after = self._measure(circuits)
        effects = feature_effects(after)
        self._compare(_key(run, BASE, checkpoint), TRAINED, self._base, after)
        self._features.append(
            self._changed(self.effects.base, effects, _key(run, BASE, checkpoint))
        )
        if run in self._latest:
            name, before = self._latest[run]
            self._compare(_key(run, name, checkpoint), TRAINED, before, after)
            step = _key(run, name, checkpoint)
            self._features.append(self._changed(self.effects.runs[run], effects, step))
        self._latest[run] = checkpoint, after
        self._sets.setdefault(run, {})[checkpoint] = [circuit.sets for circuit in after]
        self.effects.runs[run] = effects

    def add_random(self, run: Run, draw: int, checkpoint: str, circuits: Sequence[Circuit]) -> None:
        """Compare a random adapter, with the norms of a checkpoint, with the base."""
        after = self._measure(circuits)
        self._compare(_key(run, BASE, checkpoint), random_change(draw), self._base, after)
        if draw == 0:
            self.effects.random[run] = feature_effects(after)

    def add_random_model(self, draw: int, circuits: Sequence[Circuit]) -> None:
        """Compare a randomly initialised model with the base."""
        pairs = match_circuits(self._base, self._measure(circuits))
        for prompt, (a, b) in zip(self.prompts, pairs, strict=True):
            change = change_between(a, b)
            self._random_models.append(
                {
                    "draw": draw,
                    "prompt": prompt.id,
                    "role": prompt.role,
                    "drift": change.drift,
                    "signed_drift": change.signed_drift,
                }
            )

    def add_planted(
        self, run: Run, planted: Mapping[str, Any], circuits: Sequence[Circuit]
    ) -> None:
        """Compare the run's latest checkpoint with the same after a change was planted in it.

        Args:
            planted: layer, feature, name and scale of the change.
            circuits: of some of the prompts.
        """
        latest = {circuit.circuit.prompt: circuit for circuit in self._latest[run][1]}
        unchanged = [latest[circuit.prompt] for circuit in circuits]
        before, after = zip(*match_circuits(unchanged, self._measure(circuits)), strict=True)
        place = {name: planted[name] for name in ("layer", "feature")}
        rank = planted_rank(feature_effects(before), feature_effects(after), **place)
        described = {"name": planted["name"], **place, "scale": planted["scale"]}
        self._planted.append({"run": run.name, **described, **rank})

    def compare_runs(self, checkpoint: str) -> None:
        """Compare every two runs, which must all have come to ``checkpoint``."""
        for one, other in combinations(sorted(self._latest), 2):
            pairs = match_circuits(self._latest[one][1], self._latest[other][1])
            changes = self._in_threads(change_between, *zip(*pairs, strict=True))
            for prompt, change in zip(self.prompts, changes, strict=True):
                self._between.append(
                    {
                        "checkpoint": checkpoint,
                        "run_a": one.name,
                        "run_b": other.name,
                        "prompt": prompt.id,
                        "role": prompt.role,
                        "drift": change.drift,
                    }
                )

    def drift(self) -> pd.DataFrame:
        """A row per run, change, pair of checkpoints and prompt."""
        return _ordered(pd.DataFrame(self._drift), [*KEY[:3], "change", *KEY[3:]])

    def places(self) -> pd.DataFrame:
        """Where the trained checkpoints differ from base, averaged over a role's and type's
        prompts: ``gained``, ``lost``, ``moved``, ``before`` by layer and segment."""
        measures = ["gained", "lost", "moved", "before"]
        places = pd.concat(self._places)
        return places.groupby(PLACE, as_index=False, sort=True)[measures].mean()

    def changed_features(self) -> pd.DataFrame:
        """The features that changed most on discovery prompts, by pair of checkpoints."""
        return _ordered(pd.concat(self._features), KEY)

    def between_runs(self) -> pd.DataFrame:
        columns = ["checkpoint", "run_a", "run_b", "prompt", "role", "drift"]
        return pd.DataFrame(self._between, columns=columns)

    def positive_control(self) -> pd.DataFrame:
        columns = ["run", "name", "layer", "feature", "scale", "rank", "change", "runner_up"]
        return pd.DataFrame(self._planted, columns=columns)

    def random_models(self) -> pd.DataFrame:
        columns = ["draw", "prompt", "role", "drift", "signed_drift"]
        return pd.DataFrame(self._random_models, columns=columns)

    def overlaps(self, seed: int) -> pd.DataFrame:
        """See :func:`circuitdrift.overlap_table.overlap_table`."""
        return overlap_table(
            [circuit.sets for circuit in self._base],
            {run: self._sets[run] for run in sorted(self._sets)},
            [prompt.role for prompt in self.prompts],
            self._settings,
            seed,
        )

    def _measure(self, circuits: Sequence[Circuit]) -> list[MeasuredCircuit]:
        return self._in_threads(lambda circuit: measure(circuit, self._thresholds), circuits)

    def _compare(
        self,
        key: dict[str, Any],
        change_of: str,
        before: Sequence[MeasuredCircuit],
        after: Sequence[MeasuredCircuit],
    ) -> None:
        sides = tuple(zip(*match_circuits(before, after), strict=True))
        changes = self._in_threads(change_between, *sides)
        compared = self._in_threads(compare_pair, *sides, changes)
        for prompt, b, change, row in zip(self.prompts, after, changes, compared, strict=True):
            described = {"role": prompt.role, "type": prompt.type or ""}
            named = {"prompt": prompt.id, **described, "word": prompt.word or ""}
            self._drift.append({**key, "change": change_of, **named, **row})
            if change_of == TRAINED and key["from"] == BASE and prompt.role in _PLACED_ROLES:
                place = change_by_place(change, b.circuit.segments)
                self._places.append(place.assign(**key, **described))

    def _in_threads(self, function: Callable[..., T], *items: Iterable[Any]) -> list[T]:
        """In the items' order. numpy lets other threads work while it sorts and sums."""
        with ThreadPoolExecutor(self._n_threads) as pool:
            return list(pool.map(function, *items))

    def _changed(self, before: Array, after: Array, key: dict[str, Any]) -> pd.DataFrame:
        task = self.effects.of_role("discovery")
        return feature_changes(before[task], after[task], self._settings.top_features).assign(**key)


def headline(drift: pd.DataFrame) -> dict[str, Any]:
    """Mean drift of the trained checkpoints from base by run, checkpoint and role.

    What no prompt of a role has, as evaluation prompts have no graph, is left out.
    """
    means: dict[str, Any] = {}
    trained = drift[(drift["from"] == BASE) & (drift["change"] == TRAINED)]
    for (member, checkpoint, role), rows in trained.groupby(["run", "to", "role"]):
        mean = rows[list(_HEADLINES)].astype(float).mean()
        means.setdefault(member, {}).setdefault(checkpoint, {})[role] = {
            str(measure): round(float(value), 6) for measure, value in mean.dropna().items()
        }
    return means


def _key(run: Run, before: str, after: str) -> dict[str, Any]:
    named = (run.name, run.condition, run.seed, before, after)
    return dict(zip(KEY, named, strict=True))


def _ordered(table: pd.DataFrame, key: list[str]) -> pd.DataFrame:
    """Columns and rows in the order of the key, base before the checkpoints."""
    table = table[[*key, *(column for column in table if column not in key)]]
    from_base = np.where(table["from"] == BASE, 0, 1)
    by = ["condition", "seed", *(["change"] if "change" in key else []), "_", "from", "to"]
    return table.assign(_=from_base).sort_values(by, kind="stable").drop(columns="_")
