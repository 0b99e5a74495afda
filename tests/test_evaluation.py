"""Evaluation on the tiny model: the table, against the model asked one prompt at a time."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from circuitdrift import paths
from circuitdrift.artifacts import read_json
from circuitdrift.config import Params
from circuitdrift.constraints import load_constraints, make_prompts
from circuitdrift.dataset import Prompt, read_prompts
from circuitdrift.errors import InputError
from circuitdrift.evaluation import evaluate_model, headline
from circuitdrift.measures import MEASURES
from circuitdrift.models.loading import single_token_id
from circuitdrift.stages import evaluate, finetune

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = ["run", "condition", "seed", "checkpoint", "step", "prompt", "role", "type", "word"]
DEFINED = {
    "discovery": {"p", "rank", "log_odds", "target", "correct_in_type", "top1"},
    "evaluation": {"p", "rank", "log_odds", "target", "correct_in_type", "top1"},
    "control": {"p", "rank", "log_odds", "top1", "loss"},
    "unseen": {"false_positive"},
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


def test_the_table_does_not_depend_on_the_batch_size(
    tiny_model: PreTrainedModel,
    tiny_tokenizer: PreTrainedTokenizerFast,
    prompts: list[Prompt],
) -> None:
    one, many = (evaluate_model(tiny_model, tiny_tokenizer, prompts, size) for size in (1, 32))
    pd.testing.assert_frame_equal(one, many, rtol=1e-4, atol=1e-6)


def test_every_prompt_has_the_measures_of_its_role(
    tiny_model: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast, prompts: list[Prompt]
) -> None:
    one_token = [p for p in prompts if p.role != "control"]
    one_token.append(control("the sun is", "green"))
    table = evaluate_model(tiny_model, tiny_tokenizer, one_token, 32)
    assert list(table["prompt"]) == [prompt.id for prompt in one_token]
    for role, rows in table.groupby("role"):
        defined = {name for name in MEASURES if rows[name].notna().all()}
        undefined = {name for name in MEASURES if rows[name].isna().all()}
        assert defined == DEFINED[str(role)]
        assert defined | undefined == set(MEASURES)


def test_a_held_out_prompt_asked_alone(
    tiny_model: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast, prompts: list[Prompt]
) -> None:
    prompt = next(p for p in prompts if p.id == "spatial-orbit-evaluation-1")
    (row,) = evaluate_model(tiny_model, tiny_tokenizer, [prompt], 32).to_dict("records")
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
    (row,) = evaluate_model(tiny_model, tiny_tokenizer, [prompt], 32).to_dict("records")
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
    (row,) = evaluate_model(tiny_model, tiny_tokenizer, [prompt], 32).to_dict("records")
    _, after = probabilities(tiny_model, tiny_tokenizer, prompt.text)
    ids = [single_token_id(tiny_tokenizer, answer) for answer in ("happy", "sad", "fast")]
    assert row["false_positive"] == pytest.approx(float(after[-1, ids].sum()), rel=1e-4)


@pytest.mark.parametrize("answer", ["green", "zebra"])
def test_a_controls_loss_is_over_all_tokens_but_the_first(
    tiny_model: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast, answer: str
) -> None:
    text = "the colour of the dog is"
    table = evaluate_model(tiny_model, tiny_tokenizer, [control(text, answer)], 32)
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
        evaluate_model(tiny_model, tiny_tokenizer, [prompt], 32)


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


def test_the_stage_evaluates_base_and_every_checkpoint(small_study: Params) -> None:
    params = small_study
    with pytest.raises(InputError, match="finetune@mapped-0"):
        evaluate.run(params, "mapped-0")
    finetune.run(params, "mapped-0")
    evaluate.run(params, "mapped-0")

    table = pd.read_csv(paths.evaluation_table("mapped-0"), dtype={"checkpoint": str})
    assert list(table.columns) == [*COLUMNS, *MEASURES]
    prompts = read_prompts(paths.PROMPTS)
    assert len(table) == 5 * len(prompts)
    steps = table.groupby("checkpoint")["step"].unique().map(list).to_dict()
    assert steps == {"base": [0], "025": [2], "050": [3], "075": [5], "100": [6]}
    assert set(table["condition"]) == {"mapped"}
    metrics = read_json(paths.evaluation_metrics("mapped-0"))
    assert set(metrics) == {"base", "025", "050", "075", "100"}
    assert metrics["100"]["p"] > metrics["base"]["p"]
    written = paths.evaluation_table("mapped-0").read_bytes()
    evaluate.run(params, "mapped-0")
    assert paths.evaluation_table("mapped-0").read_bytes() == written
