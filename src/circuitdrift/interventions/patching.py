"""Activations of one model put into another, at chosen features and every position.

Sufficiency: the tuned model's activations of the recruited features in the base model. Necessity:
the base model's in the tuned model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from circuitdrift.interventions.prompts import TargetPrompt
from circuitdrift.interventions.runs import Edit, Recording, Trial

Features = Sequence[tuple[int, int]]
"""(layer, neuron) of each feature."""

RECRUITED = "recruited"
SUFFICIENCY = "sufficiency"
NECESSITY = "necessity"


def patching_trials(
    direction: str,
    prompts: Sequence[TargetPrompt],
    base: Recording,
    tuned: Recording,
    features: Mapping[str, Mapping[str, Features]],
) -> Iterator[Trial]:
    """Each set of features patched on the prompts of its word.

    The trials of sufficiency are for the base model, those of necessity for the tuned one.

    Args:
        base, tuned: the models on ``prompts``.
        features: by the set's name and by word; a word without features gives no trial.
    """
    source = {SUFFICIENCY: tuned, NECESSITY: base}[direction]
    for index, prompt in sorted(enumerate(prompts), key=lambda item: len(item[1].tokens)):
        for name, of_word in features.items():
            chosen = of_word.get(str(prompt.word), ())
            if chosen:
                row = {
                    "direction": direction,
                    "nodes": name,
                    "n_nodes": len(chosen),
                    **prompt.described,
                    "base": base.targets[index].item(),
                    "tuned": tuned.targets[index].item(),
                }
                values = source.activations[index]
                yield row, Edit(prompt, feature_mask(chosen, values), values)


def feature_mask(features: Features, activations: Tensor) -> Tensor:
    """True at the features' every position, shaped as ``activations``
    ``[n_layers, n_positions, d_mlp]``."""
    mask = torch.zeros_like(activations, dtype=torch.bool)
    for layer, neuron in features:
        mask[layer, :, neuron] = True
    return mask


def random_features(
    features: Features, d_mlp: int, generator: np.random.Generator
) -> list[tuple[int, int]]:
    """As many features per layer, drawn without replacement from those not in ``features``.

    Fewer where a layer has fewer others left.
    """
    drawn: list[tuple[int, int]] = []
    for layer in sorted({layer for layer, _ in features}):
        taken = {neuron for of_layer, neuron in features if of_layer == layer}
        others = np.setdiff1d(np.arange(d_mlp), sorted(taken))
        chosen = generator.choice(others, min(len(taken), len(others)), replace=False)
        drawn.extend((layer, int(neuron)) for neuron in sorted(chosen))
    return drawn
