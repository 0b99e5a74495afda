"""Evaluation on the tiny model: the table, against the model asked one prompt at a time."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from circuitdrift.constraints import load_constraints, make_prompts
from circuitdrift.dataset import Prompt
from circuitdrift.errors import InputError
from circuitdrift.evaluation import evaluate_model, headline, read_prompt_ends
from circuitdrift.measures import MEASURES
from circuitdrift.models.loading import load_model, single_token_id

ROOT = Path(__file__).resolve().parents[1]
FROM_BASE = {"kl_to_base", "activation_distance"}
DEFINED = {
    "evaluation": {"p", "rank", "log_odds", "target", "correct_in_type", "top1"} | FROM_BASE,
    "control": {"p", "rank", "log_odds", "top1", "loss"},
    "unseen": {"false_positive"} | FROM_BASE,
    "reverse": {"p", "correct_in_type"},
}


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    return make_prompts(load_constraints(ROOT / "data" / "constraints.yaml"))


def control(text: str, answer: str) -> Prompt:
    return Prompt("control-00", "control", None, None, None, text, answer, ())


@torch.inference_mode()
def probabilities(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, text: str
) -> tuple[list[int], torch.Tensor]:
    """Token ids, and after each of them the distribution of the next."""
    ids = tokenizer.encode(text)
    return ids, model(torch.tensor([ids])).logits[0].double().softmax(-1)


@torch.no_grad()
def move(model: PreTrainedModel) -> None:
    """Change the model a little, as training would."""
    generator = torch.Generator().manual_seed(0)
    for layer in model.model.layers:
        weight = layer.self_attn.o_proj.weight
        weight += 0.1 * torch.randn(weight.shape, generator=generator)


def test_the_table_does_not_depend_on_the_batch_size(
    tiny_base: Path, tiny_tokenizer: PreTrainedTokenizerFast, prompts: list[Prompt]
) -> None:
    base, moved = load_model(tiny_base), load_model(tiny_base)
    move(moved)
    one, many = (
        evaluate_model(
            moved,
            tiny_tokenizer,
            prompts,
            size,
            read_prompt_ends(base, tiny_tokenizer, prompts, size),
        )
        for size in (1, 32)
    )
    pd.testing.assert_frame_equal(one, many, rtol=1e-4, atol=1e-6)
    assert (one["kl_to_base"].dropna() > 1e-3).all()


def test_every_prompt_but_those_for_discovery_has_the_measures_of_its_role(
    tiny_model: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast, prompts: list[Prompt]
) -> None:
    given = [p for p in prompts if p.role != "control"]
    given.append(control("the sun is", "green"))
    table = evaluate_model(tiny_model, tiny_tokenizer, given, 32, None)
    asked = [prompt.id for prompt in given if prompt.role != "discovery"]
    assert list(table["prompt"]) == asked
    assert set(table["role"]) == set(DEFINED)
    for role, rows in table.groupby("role"):
        defined = {name for name in MEASURES if rows[name].notna().all()}
        undefined = {name for name in MEASURES if rows[name].isna().all()}
        assert defined == DEFINED[str(role)]
        assert defined | undefined == set(MEASURES)


def test_the_base_model_has_not_moved_from_itself(
    tiny_model: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast, prompts: list[Prompt]
) -> None:
    table = evaluate_model(tiny_model, tiny_tokenizer, prompts, 32, None)
    rows = table[table["role"].isin(["evaluation", "unseen"])]
    assert (rows[["kl_to_base", "activation_distance"]] == 0).all(axis=None)


@pytest.mark.parametrize("role", ["evaluation", "unseen"])
def test_the_distances_from_base_of_a_prompt_asked_alone(
    tiny_base: Path, tiny_tokenizer: PreTrainedTokenizerFast, prompts: list[Prompt], role: str
) -> None:
    base, moved = load_model(tiny_base), load_model(tiny_base)
    move(moved)
    ends = read_prompt_ends(base, tiny_tokenizer, prompts, 32)
    table = evaluate_model(moved, tiny_tokenizer, prompts, 32, ends).set_index("prompt")
    prompt = next(prompt for prompt in prompts if prompt.role == role)
    q, p = (probabilities(model, tiny_tokenizer, prompt.text)[1][-1] for model in (base, moved))
    kl = float((p * (p / q).log()).sum())
    assert table.loc[prompt.id, "kl_to_base"] == pytest.approx(kl, rel=1e-4)
    assert kl > 1e-3
    before, after = (streams(model, tiny_tokenizer, prompt.text) for model in (base, moved))
    cosine = torch.nn.functional.cosine_similarity(before, after, dim=-1)
    distance = 1 - float(cosine.mean())
    assert table.loc[prompt.id, "activation_distance"] == pytest.approx(distance, rel=1e-4)
    assert distance > 1e-3


@torch.inference_mode()
def streams(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, text: str) -> torch.Tensor:
    """The residual stream of the last token after each layer ``[n_layers, d_model]``."""
    ids = torch.tensor([tokenizer.encode(text)])
    states = model(ids, output_hidden_states=True).hidden_states
    return torch.stack([layer[0, -1].double() for layer in states[1:]])


def test_a_held_out_prompt_asked_alone(
    tiny_model: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast, prompts: list[Prompt]
) -> None:
    prompt = next(p for p in prompts if p.id == "spatial-orbit-evaluation-1")
    (row,) = evaluate_model(tiny_model, tiny_tokenizer, [prompt], 32, None).to_dict("records")
    _, next_token = probabilities(tiny_model, tiny_tokenizer, prompt.text)
    answer = single_token_id(tiny_tokenizer, "circular")
    p = float(next_token[-1, answer])
    assert row["p"] == pytest.approx(p, rel=1e-4)
    assert row["log_odds"] == pytest.approx(math.log(p / (1 - p)), rel=1e-4)
    others = [single_token_id(tiny_tokenizer, other) for other in ("upward", "downward")]
    by_hand = math.log(p) - float(next_token[-1, others].log().mean())
    assert row["target"] == pytest.approx(by_hand, rel=1e-4)


def test_a_reverse_prompt_multiplies_the_words_tokens(
    tiny_model: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast, prompts: list[Prompt]
) -> None:
    prompt = next(p for p in prompts if p.id == "reverse-simple-gleem-2")
    (row,) = evaluate_model(tiny_model, tiny_tokenizer, [prompt], 32, None).to_dict("records")
    n_prompt = len(tiny_tokenizer.encode(prompt.text))
    p = {}
    for word in ("blarf", "gleem", "zephyr"):
        ids, after = probabilities(tiny_model, tiny_tokenizer, f"{prompt.text} {word}")
        assert len(ids) > n_prompt + 1
        steps = range(n_prompt, len(ids))
        p[word] = math.prod(float(after[step - 1, ids[step]]) for step in steps)
    assert row["p"] == pytest.approx(p["gleem"], rel=1e-4)
    assert row["correct_in_type"] == (max(p, key=lambda word: p[word]) == "gleem")


def test_unseen_words_sum_the_answers(
    tiny_model: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast, prompts: list[Prompt]
) -> None:
    prompt = next(p for p in prompts if p.id == "unseen-simple-florp-0")
    (row,) = evaluate_model(tiny_model, tiny_tokenizer, [prompt], 32, None).to_dict("records")
    _, after = probabilities(tiny_model, tiny_tokenizer, prompt.text)
    ids = [single_token_id(tiny_tokenizer, answer) for answer in ("happy", "sad", "fast")]
    assert row["false_positive"] == pytest.approx(float(after[-1, ids].sum()), rel=1e-4)


@pytest.mark.parametrize("answer", ["green", "zebra"])
def test_a_controls_loss_is_over_all_tokens_but_the_first(
    tiny_model: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast, answer: str
) -> None:
    text = "the colour of the dog is"
    table = evaluate_model(tiny_model, tiny_tokenizer, [control(text, answer)], 32, None)
    (row,) = table.to_dict("records")
    ids, after = probabilities(tiny_model, tiny_tokenizer, f"{text} {answer}")
    p = [float(after[step - 1, ids[step]]) for step in range(1, len(ids))]
    n_tokens = len(ids) - len(tiny_tokenizer.encode(text))
    assert (n_tokens == 1) == (answer == "green")
    assert ids[0] == tiny_tokenizer.bos_token_id
    assert row["loss"] == pytest.approx(-sum(map(math.log, p)) / len(p), rel=1e-4)
    assert row["p"] == pytest.approx(math.prod(p[-n_tokens:]), rel=1e-4)
    assert math.isnan(row["rank"]) == (n_tokens > 1)


def test_an_answer_of_several_tokens_is_refused(
    tiny_model: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    prompt = Prompt("x", "evaluation", "t", "w", "{word} is", "w is", "grey", ("happy",))
    with pytest.raises(InputError, match="grey"):
        evaluate_model(tiny_model, tiny_tokenizer, [prompt], 32, None)


def test_headline_by_hand() -> None:
    nan = float("nan")
    names = ("checkpoint", "role", "correct_in_type", "top1", "p", "log_odds", "target")
    rows = [
        ("base", "evaluation", 1.0, 0.0, 0.25, -1.0, 0.5, nan, nan),
        ("base", "evaluation", 0.0, 0.0, 0.75, 1.0, 1.5, nan, nan),
        ("base", "discovery", 1.0, 1.0, 1.0, 9.0, 9.0, nan, nan),
        ("base", "reverse", 1.0, nan, 0.1, nan, nan, nan, nan),
        ("base", "unseen", nan, nan, nan, nan, nan, 1 / 3, nan),
        ("base", "control", nan, 1.0, 0.9, 2.0, nan, nan, 2.5),
        ("100", "evaluation", 1.0, 1.0, 0.5, 0.0, 2.0, nan, nan),
        ("100", "reverse", 0.0, nan, 0.1, nan, nan, nan, nan),
        ("100", "unseen", nan, nan, nan, nan, nan, 0.5, nan),
        ("100", "control", nan, 1.0, 0.9, 2.0, nan, nan, 3.0),
    ]
    table = pd.DataFrame(rows, columns=[*names, "false_positive", "loss"])
    assert headline(table) == {
        "base": {
            "accuracy": 0.5,
            "top1": 0,
            "p": 0.5,
            "log_odds": 0,
            "target": 1,
            "reverse_accuracy": 1,
            "false_positive": 0.333333,
            "control_loss": 2.5,
        },
        "100": {
            "accuracy": 1,
            "top1": 1,
            "p": 0.5,
            "log_odds": 0,
            "target": 2,
            "reverse_accuracy": 0,
            "false_positive": 0.5,
            "control_loss": 3,
        },
    }
