"""The target of attribution: one answer's logit minus the mean logit of the other answers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Target:
    """Token ids of the right answer and of the others that it is held against."""

    answer: int
    others: tuple[int, ...]

    def direction(self, unembedding: Tensor) -> Tensor:
        """The target as a direction in the final norm's output ``[d_model]``.

        Args:
            unembedding: ``[n_vocabulary, d_model]``.
        """
        return unembedding[self.answer] - unembedding[list(self.others)].mean(0)


def top_answer_target(logits: Tensor, n_others: int = 2) -> Target:
    """A control prompt's target: the model's top answer against its next ``n_others``.

    Args:
        logits: at the prompt's last token ``[n_vocabulary]``.
    """
    first, *rest = torch.topk(logits, 1 + n_others).indices.tolist()
    return Target(first, tuple(rest))
