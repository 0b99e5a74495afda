"""Whether a converted model is the model it should be."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from circuitdrift.models.catalogue import PLAIN_ENGLISH, Acceptance


def accept(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, acceptance: Acceptance
) -> float:
    """Hold a converted model against the catalogue; return its loss on plain English in nats.

    Raises:
        RuntimeError: if the tokenizer gives other ids, or the loss is above the bound. The weights
            hash right, so it is the conversion that went wrong: an installed library has changed.
    """
    found = tuple(tokenizer.encode(acceptance.sentence))
    if found != acceptance.token_ids:
        raise RuntimeError(
            f"the converted tokenizer is wrong: {acceptance.sentence!r} became {found}, which is "
            f"{tokenizer.convert_ids_to_tokens(found)}, and should be {acceptance.token_ids}"
        )
    loss = mean_loss(model, tokenizer, PLAIN_ENGLISH)
    if not loss <= acceptance.max_loss:
        raise RuntimeError(
            f"the converted model is wrong: {loss:.2f} nats per token on plain English, "
            f"where at most {acceptance.max_loss} is right"
        )
    return loss


@torch.no_grad()
def mean_loss(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, text: str) -> float:
    """Mean loss of the tokens of ``text`` after the first, nats per token."""
    ids = torch.tensor([tokenizer.encode(text)])
    return float(model(ids, labels=ids).loss)
