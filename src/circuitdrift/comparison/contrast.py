"""The nodes whose effect on a word depends on what a run was taught for it: an exploratory search.

A node is a neuron at the word's last token, at the prompt's last token or at the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from circuitdrift.circuits.circuit import ROLES
from circuitdrift.comparison.decoders import Feature
from circuitdrift.statistics.permutation import Labelled, can_be_tested, contrasts_test

if TYPE_CHECKING:
    from circuitdrift.params import Compare, Statistics

Array = NDArray[np.floating[Any]]
Ints = NDArray[np.int_]
Row = dict[str, Any]
TokensOf = Callable[[Sequence[Feature]], Mapping[Feature, dict[str, str]]]
"""What each feature ``promotes`` and ``suppresses``."""

GROWTH, SHRINKAGE, CHANGE_OF_SIGN = "growth", "shrinkage", "change of sign"
NEGLIGIBLE = 0.1  # of the larger of two effects: a smaller one has no sign to change


@dataclass(frozen=True)
class WordEffects:
    """A word's mean effects over its discovery prompts, on the target of every answer.

    Attributes:
        runs: at the last checkpoint of every run that was taught an answer, logits
            ``[n_runs, n_answers, n_layers, n_roles, d_mlp]``.
        base: in the base model ``[n_answers, n_layers, n_roles, d_mlp]``.
        taught: which of the answers each run was taught ``[n_runs]``.
    """

    type: str
    word: str
    runs: Array
    base: Array
    taught: Ints


def search_rows(
    words: Iterable[WordEffects], settings: Compare, statistics: Statistics, tokens_of: TokensOf
) -> tuple[list[Row], list[Row]]:
    """The nodes that contrast assignments most, of each word, and how many were tested and pass.

    A node's contrast is the mean over unordered pairs of runs of different assignments of donor
    minus recipient effect on d, the logit of the donor's answer minus that of the recipient's.
    Tested are each word's ``settings.tested_per_word`` strongest nodes, all words together.

    ``size_base`` and ``size_runs`` are the root mean squares of its effects on all answers.

    Args:
        words: the same runs in every word; one word at a time is held in whole.
        settings: how many nodes are tested and listed, at which false discovery rate.

    Returns:
        rows of contrast.csv: of each word at most ``settings.top_nodes``, the largest first;
        a row for each word: type, word, how many nodes were tested and how many pass. Where no two
        runs were taught one answer, or none another, nothing is tested.
    """
    from scipy.stats import false_discovery_control  # a second of processor time

    candidates = [_Candidates.of(word, settings.tested_per_word) for word in words]
    groups = [Labelled(some.on_logits, some.taught) for some in candidates if some.nodes.size]
    if groups:
        contrast, p = contrasts_test(groups, statistics)
        q = false_discovery_control(p)
    else:
        contrast = p = q = np.empty(0)
    rows: list[Row] = []
    counts: list[Row] = []
    start = 0
    for some in candidates:
        own = slice(start, start + some.nodes.size)
        start = own.stop
        passes = np.flatnonzero(q[own] <= settings.fdr)
        name = {"type": some.type, "word": some.word}
        counts.append({**name, "n_tested": some.nodes.size, "n_pass": passes.size})
        strongest = passes[np.argsort(-np.abs(contrast[own][passes]), kind="stable")]
        for index in strongest[: settings.top_nodes].tolist():
            numbers = {"contrast": contrast[own][index], "p": p[own][index], "q": q[own][index]}
            rows.append({**name, **some.place(index), **numbers, **some.described(index)})
    tokens = tokens_of([(row["layer"], row["neuron"]) for row in rows])
    return [row | tokens[row["layer"], row["neuron"]] for row in rows], counts


@dataclass(frozen=True)
class _Candidates:
    """A word's tested nodes.

    Attributes:
        nodes: as flat indices into ``shape`` ``[n]``.
        runs: their effects ``[n_runs, n_answers, n]``.
        base: likewise ``[n_answers, n]``.
        shape: (n_layers, n_roles, d_mlp).
    """

    type: str
    word: str
    nodes: Ints
    runs: Array
    base: Array
    taught: Ints
    shape: tuple[int, ...]

    @classmethod
    def of(cls, word: WordEffects, n_tested: int) -> _Candidates:
        """The strongest of a word's nodes: by mean |effect| over answers, runs and the base.

        The rest, twenty of twenty-one in the default model, have effects too small to matter and
        would only dilute the correction for multiple tests. Because the choice does not look at
        what a run was taught, a test by permuting that keeps its level (Bourgon, Gentleman and
        Huber 2010, PNAS 107). Nodes without any effect cannot be tested.
        """
        runs = word.runs.reshape(*word.runs.shape[:2], -1)
        base = word.base.reshape(len(word.base), -1)
        strength = (np.abs(runs).mean(1).sum(0) + np.abs(base).mean(0)) / (len(runs) + 1)
        nodes = np.sort(np.argsort(-strength, kind="stable")[:n_tested])
        nodes = nodes[(strength[nodes] > 0) & can_be_tested(word.taught)]
        # Copies, so that the whole arrays can go.
        return cls(
            *(word.type, word.word, nodes, runs[..., nodes], base[..., nodes]),
            *(word.taught, word.base.shape[1:]),
        )

    @property
    def on_logits(self) -> Array:
        """Effects on an answer's logit minus the mean logit of all answers, :attr:`runs` alike.

        A target subtracts the mean of the others: times (n - 1) / n it subtracts the mean of all.
        So the difference of two of these is the effect on the difference of two answers' logits.
        """
        n_answers = len(self.base)
        return self.runs * ((n_answers - 1) / n_answers)

    def place(self, index: int) -> Row:
        layer, role, neuron = map(int, np.unravel_index(self.nodes[index], self.shape))
        return {"layer": layer, "neuron": neuron, "role": ROLES[role]}

    def described(self, index: int) -> Row:
        runs = self.runs[..., index].astype(np.float64)
        base = self.base[..., index].astype(np.float64)
        sizes = (float(np.sqrt((effects**2).mean())) for effects in (base, runs))
        return {
            "kind": kind(base, runs),
            **dict(zip(("size_base", "size_runs"), sizes, strict=True)),
        }


def kind(base: Array, runs: Array) -> str:
    """How a node changed from the base model to the runs: one of the three kinds.

    A node's effects on all answers are a vector, of squared size |v|^2 in the base and |x|^2, mean
    over runs. It changes its sign where the mean of x . v is below minus a tenth of the larger of
    the two: where all effects change sign by one factor, if neither is ten times the other. Else it
    grows if |x|^2 > |v|^2, and shrinks if not.

    The effect on what a run was taught cannot say it alone: over balanced assignments its base is
    the mean over all answers, which is 0.

    Args:
        base: a node's effects on every answer ``[n_answers]``.
        runs: likewise ``[n_runs, n_answers]``.
    """
    before, after = (base**2).sum(), (runs**2).sum(1).mean()
    if (runs @ base).mean() < -NEGLIGIBLE * max(before, after):
        return CHANGE_OF_SIGN
    return GROWTH if after > before else SHRINKAGE
