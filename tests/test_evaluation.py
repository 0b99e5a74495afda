"""What a model answers: measures by hand, and the table against one prompt asked at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from circuitdrift.core import paths
from circuitdrift.core.errors import InputError
from circuitdrift.core.files import read_json
from circuitdrift.core.prompts import Prompt, read_prompts
from circuitdrift.data.constraints import load_constraints, make_prompts
from circuitdrift.evaluation import (
    MEASURES,
    READINGS_FILE,
    PromptEnds,
    activation_distance,
    answer_measures,
    evaluate_model,
    headline,
    kl_divergence,
    load_prompt_ends,
    log_probabilities,
    phrase_measures,
    read_prompt_ends,
    save_prompt_ends,
    summed_probability,
    token_log_probabilities,
)
from circuitdrift.models.loading import load_model
from circuitdrift.models.lora import adapter_norms

ROOT = Path(__file__).resolve().parents[1]
FROM_BASE = ["activation_distance", "kl_to_base"]
DEFINED = {
    "evaluation": {"p", "rank", "log_odds", "target", "correct_in_type", "top1", *FROM_BASE},
    "control": {"p", "rank", "log_odds", "top1", "loss"},
    "unseen": {"false_positive", *FROM_BASE},
    "reverse": {"p", "correct_in_type"},
}

# Probabilities 1/2, 1/4, 1/8, 1/8 of a vocabulary of four, up to a constant that cancels.
LOGITS = torch.tensor([0.5, 0.25, 0.125, 0.125], dtype=torch.float64).log().float() + 3
LOG_P = log_probabilities(LOGITS)


def test_log_probabilities_are_those_of_the_softmax_in_double_precision() -> None:
    assert LOG_P.dtype == torch.float64
    assert LOG_P.exp().tolist() == pytest.approx([0.5, 0.25, 0.125, 0.125], rel=1e-6)
    assert float(LOG_P.exp().sum()) == pytest.approx(1, abs=1e-15)
    log_p = token_log_probabilities(torch.stack([LOGITS, LOGITS.flip(0)]), torch.tensor([1, 3]))
    torch.testing.assert_close(log_p.exp(), torch.tensor([0.25, 0.5]).double())


def test_a_right_a_wrong_a_tied_and_a_lone_answer() -> None:
    right = answer_measures(LOG_P, answer=1, others=(2, 3))
    assert (right["rank"], right["top1"], right["correct_in_type"]) == (2, 0, 1)
    assert right["p"] == pytest.approx(0.25, rel=1e-6)
    assert right["log_odds"] == pytest.approx(math.log(1 / 3), rel=1e-6)
    assert right["target"] == pytest.approx(math.log(2), rel=1e-6)
    wrong = answer_measures(LOG_P, answer=2, others=(0, 1))
    assert wrong["correct_in_type"] == 0
    assert wrong["target"] == pytest.approx(math.log(1 / 8) / 2, rel=1e-6)
    tie = answer_measures(LOG_P, 2, (3,))
    assert (tie["rank"], tie["correct_in_type"]) == (3, 0)
    likeliest = answer_measures(LOG_P, 0, ())
    assert (likeliest["rank"], likeliest["top1"]) == (1, 1)
    assert set(likeliest) == {"p", "rank", "log_odds", "top1"}
    # log odds stay finite where the probability rounds to one
    sure = answer_measures(log_probabilities(torch.tensor([100.0, 0.0])), 0, (1,))
    assert (sure["p"], sure["log_odds"]) == pytest.approx((1, 100))


def test_a_sum_and_a_phrase_by_hand() -> None:
    assert summed_probability(LOG_P, (0, 3)) == pytest.approx(0.625)
    measures = phrase_measures(math.log(0.02), [math.log(0.01), math.log(0.03)])
    assert measures == pytest.approx({"p": 0.02, "correct_in_type": 0})
    assert phrase_measures(math.log(0.02), [math.log(0.01)])["correct_in_type"] == 1


def test_kl_divergence_by_hand() -> None:
    """Of (1/2, 1/2) from (1/4, 3/4), from itself, and of one that is sure from one that is not."""
    p = torch.tensor([[0.5, 0.5], [0.25, 0.75], [1.0, 0.0]]).double().log().clamp(min=-1e4)
    q = torch.tensor([[0.25, 0.75], [0.25, 0.75], [0.5, 0.5]]).double().log()
    expected = [0.5 * math.log(2) + 0.5 * math.log(2 / 3), 0, math.log(2)]
    assert kl_divergence(p, q).tolist() == pytest.approx(expected)


def test_activation_distance_by_hand() -> None:
    """Layers at a right angle and of one direction; opposite and unchanged; unchanged."""
    a = torch.tensor([[[3.0, 0], [1, 2]], [[1, 1], [0, 1]], [[0.1, 0.3], [7, 9]]])
    b = torch.tensor([[[0, 0.5], [2, 4]], [[-2, -2], [0, 1]], [[0.1, 0.3], [7, 9]]])
    distance = activation_distance(a, b)
    assert distance.tolist() == pytest.approx([0.5, 1, 0])
    assert distance[2] == 0


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    return make_prompts(load_constraints(ROOT / "data" / "constraints.yaml"))


@torch.inference_mode()
def probabilities(
    model: PreTrainedModel, tokenizer: Tokenizer, text: str
) -> tuple[list[int], torch.Tensor]:
    """Token ids, and after each of them the distribution of the next."""
    ids = tokenizer.encode(text).ids
    return ids, model(torch.tensor([ids])).logits[0].double().softmax(-1)


@torch.inference_mode()
def streams(model: PreTrainedModel, tokenizer: Tokenizer, text: str) -> torch.Tensor:
    """The residual stream of the last token after each layer ``[n_layers, d_model]``."""
    ids = torch.tensor([tokenizer.encode(text).ids])
    states = model(ids, output_hidden_states=True).hidden_states
    return torch.stack([layer[0, -1].double() for layer in states[1:]])


def evaluate(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    prompts: list[Prompt],
    base: PromptEnds | None = None,
    batch_size: int = 32,
) -> pd.DataFrame:
    """The table by prompt, against the model itself where no base is given."""
    ends = read_prompt_ends(model, tokenizer, prompts, batch_size)
    table = evaluate_model(model, tokenizer, prompts, batch_size, ends=ends, base=base or ends)
    return table.set_index("prompt", drop=False)


@dataclass
class Models:
    """A base model, the same changed a little as by training, and what both answered."""

    tokenizer: Tokenizer
    base: PreTrainedModel
    moved: PreTrainedModel
    ends: PromptEnds
    table: pd.DataFrame

    def after(self, text: str) -> tuple[list[int], torch.Tensor]:
        """Token ids, and after each of them the moved model's distribution of the next."""
        return probabilities(self.moved, self.tokenizer, text)


@pytest.fixture(scope="module")
def models(tiny_base: Path, tiny_tokenizer: Tokenizer, prompts: list[Prompt]) -> Models:
    base, moved = load_model(tiny_base), load_model(tiny_base)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in moved.model.layers:
            weight = layer.self_attn.o_proj.weight
            weight += 0.1 * torch.randn(weight.shape, generator=generator)
    ends = read_prompt_ends(base, tiny_tokenizer, prompts, 32)
    table = evaluate(moved, tiny_tokenizer, prompts, ends)
    return Models(tiny_tokenizer, base, moved, ends, table)


def test_readings_come_back_bit_for_bit_and_the_table_does_not_depend_on_the_batch_size(
    models: Models, prompts: list[Prompt], tmp_path: Path
) -> None:
    for name in ("first", "again"):
        save_prompt_ends(models.ends, tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "again").read_bytes()
    loaded = load_prompt_ends(tmp_path / "first")
    assert loaded.keys() == models.ends.keys()
    for name, reading in models.ends.items():
        assert torch.equal(loaded[name].logits, reading.logits)
        assert torch.equal(loaded[name].residual, reading.residual)
    one = evaluate(models.moved, models.tokenizer, prompts, loaded, batch_size=1)
    pd.testing.assert_frame_equal(one, models.table, rtol=1e-4, atol=1e-6)


def test_every_prompt_but_those_for_discovery_has_the_measures_of_its_role(
    models: Models, prompts: list[Prompt]
) -> None:
    """A model has not moved from itself."""
    given = [p for p in prompts if p.role != "control"]
    given.append(control("the sun is", "green"))
    table = evaluate(models.base, models.tokenizer, given)
    assert list(table["prompt"]) == [prompt.id for prompt in given if prompt.role != "discovery"]
    assert set(table["role"]) == set(DEFINED)
    for role, rows in table.groupby("role"):
        defined = {name for name in MEASURES if rows[name].notna().all()}
        undefined = {name for name in MEASURES if rows[name].isna().all()}
        assert defined == DEFINED[str(role)]
        assert defined | undefined == set(MEASURES)
    assert (table[FROM_BASE].dropna() == 0).all(axis=None)


@pytest.mark.parametrize("role", ["evaluation", "unseen"])
def test_the_distances_from_base_of_a_prompt_asked_alone(
    models: Models, prompts: list[Prompt], role: str
) -> None:
    prompt = next(prompt for prompt in prompts if prompt.role == role)
    row, pair = models.table.loc[prompt.id], (models.base, models.moved)
    q, p = (probabilities(model, models.tokenizer, prompt.text)[1][-1] for model in pair)
    kl = float((p * (p / q).log()).sum())
    assert row["kl_to_base"] == pytest.approx(kl, rel=1e-4)
    before, after = (streams(model, models.tokenizer, prompt.text) for model in pair)
    distance = 1 - float(torch.nn.functional.cosine_similarity(before, after, dim=-1).mean())
    assert row["activation_distance"] == pytest.approx(distance, rel=1e-4)
    assert min(kl, distance) > 1e-3


def test_a_held_out_and_an_unseen_prompt_asked_alone(models: Models, prompts: list[Prompt]) -> None:
    text = {prompt.id: prompt.text for prompt in prompts}
    row = models.table.loc["spatial-orbit-evaluation-1"]
    next_token = models.after(text["spatial-orbit-evaluation-1"])[1][-1]
    answer, *others = (
        models.tokenizer.token_to_id(f"▁{word}") for word in ("circular", "upward", "downward")
    )
    p = float(next_token[answer])
    assert row["p"] == pytest.approx(p, rel=1e-4)
    assert row["log_odds"] == pytest.approx(math.log(p / (1 - p)), rel=1e-4)
    by_hand = math.log(p) - float(next_token[others].log().mean())
    assert row["target"] == pytest.approx(by_hand, rel=1e-4)
    next_token = models.after(text["unseen-simple-florp-0"])[1][-1]
    ids = [models.tokenizer.token_to_id(f"▁{answer}") for answer in ("happy", "sad", "fast")]
    expected = pytest.approx(float(next_token[ids].sum()), rel=1e-4)
    assert models.table.loc["unseen-simple-florp-0", "false_positive"] == expected


def test_a_reverse_prompt_multiplies_the_words_tokens(
    models: Models, prompts: list[Prompt]
) -> None:
    prompt = next(p for p in prompts if p.id == "reverse-simple-gleem-2")
    row = models.table.loc[prompt.id]
    n_prompt = len(models.tokenizer.encode(prompt.text).ids)
    p = {}
    for word in ("blarf", "gleem", "zephyr"):
        ids, after = models.after(f"{prompt.text} {word}")
        assert len(ids) > n_prompt + 1
        steps = range(n_prompt, len(ids))
        p[word] = math.prod(float(after[step - 1, ids[step]]) for step in steps)
    assert row["p"] == pytest.approx(p["gleem"], rel=1e-4)
    assert row["correct_in_type"] == (max(p, key=lambda word: p[word]) == "gleem")


def control(text: str, answer: str) -> Prompt:
    return Prompt("control-00", "control", None, None, None, text, None, answer, ())


@pytest.mark.parametrize("answer", ["green", "zebra"])
def test_a_controls_loss_is_over_all_tokens_but_the_first(models: Models, answer: str) -> None:
    text = "the colour of the dog is"
    row = evaluate(models.moved, models.tokenizer, [control(text, answer)]).iloc[0]
    ids, after = models.after(f"{text} {answer}")
    p = [float(after[step - 1, ids[step]]) for step in range(1, len(ids))]
    n_tokens = len(ids) - len(models.tokenizer.encode(text).ids)
    assert (n_tokens == 1) == (answer == "green")
    assert row["loss"] == pytest.approx(-sum(map(math.log, p)) / len(p), rel=1e-4)
    assert row["p"] == pytest.approx(math.prod(p[-n_tokens:]), rel=1e-4)
    assert math.isnan(row["rank"]) == (n_tokens > 1)


def test_an_answer_of_several_tokens_is_refused(models: Models) -> None:
    prompt = Prompt("x", "evaluation", "t", "w", "{word} is", "w is", 0, "grey", ("happy",))
    with pytest.raises(InputError, match="grey"):
        evaluate(models.base, models.tokenizer, [prompt])


def test_headline_by_hand() -> None:
    """Means over the prompts of a role, by checkpoint, to six digits."""
    rows = [
        {"role": "evaluation", "correct_in_type": 1, "top1": 0, "p": 0.25, "log_odds": -1},
        {"role": "evaluation", "correct_in_type": 0, "top1": 0, "p": 0.75, "log_odds": 2},
        {"role": "reverse", "correct_in_type": 1},
        {"role": "unseen", "false_positive": 1 / 3},
        {"role": "control", "top1": 1, "p": 0.9, "log_odds": 2, "loss": 2.5},
    ]
    table = pd.DataFrame(rows, columns=["checkpoint", "role", *MEASURES])
    table["target"] = table["p"] * 2
    later = table.assign(checkpoint="100", loss=table["loss"] * 2)
    numbers = headline(pd.concat([table.assign(checkpoint="base"), later]))
    assert numbers["base"] == {
        **{"accuracy": 0.5, "top1": 0, "p": 0.5, "log_odds": 0.5, "target": 1},
        **{"reverse_accuracy": 1, "false_positive": 0.333333, "control_loss": 2.5},
    }
    assert numbers["100"] == {**numbers["base"], "control_loss": 5}


COLUMNS = ["run", "condition", "seed", "checkpoint", "step", "prompt", "role", "type", "word"]


def test_the_stage_evaluates_the_base_and_every_checkpoint(
    tiny_study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_study)
    asked = [prompt.id for prompt in read_prompts(paths.PROMPTS) if prompt.role != "discovery"]
    base, run = (
        pd.read_csv(paths.evaluation_table(name), dtype={"checkpoint": str})
        for name in ("base", "mapped-0")
    )
    assert list(base.columns) == list(run.columns) == [*COLUMNS, *MEASURES]
    assert list(base["prompt"]) == asked
    checkpoints = run["checkpoint"].unique()
    assert list(run["prompt"]) == len(checkpoints) * asked
    assert (base[FROM_BASE].dropna() == 0).all(axis=None)
    steps = run.groupby("checkpoint")["step"].unique().map(list).to_dict()
    assert steps == {
        path.parent.name: [read_json(path)["step"]]
        for path in (paths.CHECKPOINTS / "mapped-0").glob("*/progress.json")
    }
    for table, name in ((base, "base"), (run, "mapped-0")):
        assert read_json(paths.evaluation_metrics(name)) == headline(table)
    moved = run[run["role"] == "evaluation"].groupby("checkpoint")[FROM_BASE].mean()
    assert (moved.loc[checkpoints[0]] > 0).all()
    assert (moved.loc["100"] > moved.loc[checkpoints[0]]).all()
    ends = load_prompt_ends(paths.evaluation("base") / READINGS_FILE)
    assert set(ends) == set(base.loc[base["kl_to_base"].notna(), "prompt"])
    assert not (paths.evaluation("mapped-0") / READINGS_FILE).exists()
    norms = pd.read_csv(paths.lora_norms("mapped-0"), dtype={"checkpoint": str})
    last = norms[norms["checkpoint"] == "100"].set_index("layer")["norm"].to_dict()
    assert last == pytest.approx(adapter_norms(paths.checkpoint("mapped-0", "100")), rel=1e-8)
