"""What a model answers: measures by hand, and the table against one text asked at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import PreTrainedModel

from circuitdrift.core import paths
from circuitdrift.core.errors import InputError
from circuitdrift.core.files import read_json
from circuitdrift.core.prompts import Prompt, read_prompts
from circuitdrift.evaluation import (
    ANSWERED_ROLES,
    COURSE_ROLES,
    READINGS_FILE,
    activation_distance,
    assigned_answer,
    choice,
    evaluate_model,
    kl_divergence,
    load_ends,
    log_odds,
    log_probabilities,
    log_probabilities_without,
    read_ends,
    save_ends,
    share_below,
    spellings,
    summed_probability,
    token_log_probabilities,
)
from circuitdrift.models.loading import load_model
from circuitdrift.models.lora import adapter_norms
from circuitdrift.models.reading import Reading

COLUMNS = (
    *("prompt", "role", "type", "word", "template", "assigned", "chosen", "correct", "p", "frame"),
    *("discrimination", "log_odds", "kl_to_base", "activation_distance", "loss"),
)
FROM_BASE = ["kl_to_base", "activation_distance"]
WORDS = {
    "simple": {"blarf": "happy", "gleem": "sad", "zephyr": "fast"},
    "spatial": {"glide": "upward", "cascade": "downward", "orbit": "circular"},
}
UNSEEN = ("florp", "wimble", "drask")

# Probabilities 1/2, 1/4, 1/8, 1/8 of a vocabulary of four, up to a constant that cancels.
LOGITS = torch.tensor([0.5, 0.25, 0.125, 0.125], dtype=torch.float64).log().float() + 3
LOG_P = log_probabilities(LOGITS)


def test_log_probabilities_are_those_of_the_softmax_in_double_precision() -> None:
    assert LOG_P.dtype == torch.float64
    assert LOG_P.exp().tolist() == pytest.approx([0.5, 0.25, 0.125, 0.125], rel=1e-6)
    assert float(LOG_P.exp().sum()) == pytest.approx(1, abs=1e-15)
    log_p = token_log_probabilities(torch.stack([LOGITS, LOGITS.flip(0)]), torch.tensor([1, 3]))
    torch.testing.assert_close(log_p.exp(), torch.tensor([0.25, 0.5]).double())
    without = log_probabilities_without(LOGITS, [0, 3])
    torch.testing.assert_close(without.exp(), torch.tensor([2 / 3, 1 / 3]).double())


def test_a_sum_and_log_odds_by_hand() -> None:
    assert summed_probability(LOG_P, (0, 3)) == pytest.approx(0.625)
    assert log_odds(LOG_P, 1) == pytest.approx(math.log(1 / 3), rel=1e-6)
    # finite where the probability rounds to one
    assert log_odds(log_probabilities(torch.tensor([100.0, 0.0])), 0) == pytest.approx(100)


@pytest.mark.parametrize(
    ("scores", "right", "expected"),
    [
        ([1, 3, 2], 1, (1, 1)),
        ([1, 3, 2], 2, (1, 0)),
        ([3, 1, 3], 2, (0, 1 / 2)),
        ([3, 1, 3], 1, (0, 0)),
        ([2, 2, 2], 1, (0, 1 / 3)),
    ],
)
def test_a_choice_and_its_ties(
    scores: list[float], right: int, expected: tuple[int, float]
) -> None:
    assert choice(scores, right) == expected


def test_the_share_below_counts_ties_as_a_half() -> None:
    assert share_below(0.3, [0.1, 0.3, 0.4, 0.2]) == 2.5 / 4
    assert share_below(0.3, [0.3]) == 0.5


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


def test_every_spelling_of_an_answer_is_a_token_of_its_own() -> None:
    tokens = ["happy", "▁happy", "ĠHAPPY", " Happy", "▁unhappy", "happy▁x", "▁sad", "sadly", "SAD"]
    tokenizer = Tokenizer(WordLevel({token: id_ for id_, token in enumerate(tokens)}))
    assert spellings(tokenizer, ("Happy", "sad")) == [0, 1, 2, 3, 6, 8]
    assert spellings(tokenizer, ("happy",)) == [0, 1, 2, 3]


def prompt(type_: str, role: Any, word: str, index: int, template: str) -> Prompt:
    words = WORDS[type_]
    return Prompt(
        id=f"{type_}-{word}-{role}-{index}",
        role=role,
        type=type_,
        word=word,
        template=template,
        text=template.format(word=word, meaning=words.get(word)),
        start=template.index("{"),
        answer=word if role == "reverse" else words.get(word),
        answers=tuple(words) if role == "reverse" else tuple(words.values()),
    )


def control(text: str, answer: str) -> Prompt:
    return Prompt(f"control-{answer}", "control", None, None, None, text, None, answer, ())


NEAR = ("the word {word} means", "to a dog {word} is")
TEMPLATES = {
    "discovery": ("so {word} is",),
    "near": NEAR,
    "far": ("that {word} cat was", "the sun {word} in the"),
    "unseen": NEAR,
    "substitution": ("the {word} dog was in", "it moves {word} to the"),
    "reverse": ("the word for {meaning} is",),
}
PROMPTS = [
    *[
        prompt(type_, role, word, index, template)
        for role, templates in TEMPLATES.items()
        for type_, words in WORDS.items()
        for word in (UNSEEN if role == "unseen" else words)
        for index, template in enumerate(templates)
    ],
    *(control("the sun is", "green"), control("the water of", "zebra")),
]


@pytest.mark.parametrize(
    ("condition", "meaning", "word"),
    [
        ("mapped", "happy", "blarf"),
        # blarf, gleem, zephyr are taught sad, fast, happy; then fast, happy, sad
        ("rotated-1", "sad", "zephyr"),
        ("rotated-2", "fast", "gleem"),
        ("unrelated", "happy", "blarf"),
        ("base", "happy", "blarf"),
    ],
)
def test_the_answer_that_a_condition_assigns(condition: str, meaning: str, word: str) -> None:
    near = prompt("simple", "near", "blarf", 0, NEAR[0])
    reverse = prompt("simple", "reverse", "blarf", 0, "instead of {meaning} we say")
    assert near.answers[assigned_answer(near, condition)] == meaning
    assert reverse.answers[assigned_answer(reverse, condition)] == word


Distribution = Callable[..., Reading]


@pytest.fixture
def distribution(tiny_tokenizer: Tokenizer) -> Distribution:
    """What a model would make of a text after which words have these probabilities."""

    def made(**words: float) -> Reading:
        logits = torch.full((1, tiny_tokenizer.get_vocab_size()), -60.0)
        for word, p in words.items():
            logits[0, tiny_tokenizer.token_to_id(f"▁{word}")] = math.log(p)
        return Reading(logits, torch.ones(1, 2, 4))

    return made


def test_accuracy_and_discrimination_of_given_distributions(
    tiny_model: PreTrainedModel, tiny_tokenizer: Tokenizer, distribution: Distribution
) -> None:
    near, *unseen = prompts = [
        prompt("simple", "near" if word == "blarf" else "unseen", word, 0, NEAR[0])
        for word in ("blarf", *UNSEEN)
    ]
    elsewhere = prompt("simple", "unseen", "florp", 1, NEAR[1])
    ends = {
        near.text: distribution(happy=0.2, sad=0.2, fast=0.1, dog=0.5),
        unseen[0].text: distribution(happy=0.2, sad=0.2, fast=0.1, cat=0.5),  # as much
        unseen[1].text: distribution(happy=0.1, dog=0.9),
        unseen[2].text: distribution(happy=0.1, fast=0.3, dog=0.6),
        elsewhere.text: distribution(happy=1),
    }
    expected = {"mapped": ("happy", 0.5, 0.2), "rotated-1": ("sad", 0.5, 0.2)}
    for condition, values in {**expected, "rotated-2": ("fast", 0, 0.1)}.items():
        table = evaluate_model(
            *(tiny_model, tiny_tokenizer, [*prompts, elsewhere], condition, 8), ends=ends, base=ends
        )
        row = table.iloc[0]
        assert tuple(row[["assigned", "correct", "p"]]) == pytest.approx(values)
        assert row["chosen"] == "happy"
        assert row["frame"] == pytest.approx(0.5)
        assert row["discrimination"] == pytest.approx((0.5 + 1 + 1) / 3)
        assert table["frame"].tolist() == pytest.approx([0.5, 0.5, 0.1, 0.4, 1])


def test_substitution_of_given_distributions(
    tiny_model: PreTrainedModel, tiny_tokenizer: Tokenizer, distribution: Distribution
) -> None:
    """Half of the time `happy` follows the word; else dog, cat and sun with .90, .09, .01.

    From that, what follows `happy` diverges by .105 nats, what follows `sad` by .348. Taken the
    other way round these are 1.254 and .234; with the answers among the tokens .799 and .174.
    """
    asked = prompt("simple", "substitution", "blarf", 0, "the {word} one saw the")
    ends = {
        asked.text: distribution(dog=0.45, cat=0.045, sun=0.005, happy=0.5),
        "the happy one saw the": distribution(dog=1 - 2e-7, cat=1e-7, sun=1e-7),
        "the sad one saw the": distribution(dog=0.3, cat=0.15, sun=0.05, happy=0.5),
        "the fast one saw the": distribution(sun=1),
    }
    measure = partial(evaluate_model, tiny_model, tiny_tokenizer, [asked], base={})
    for condition, values in {
        "mapped": ("happy", "happy", 1),
        "rotated-1": ("sad", "happy", 0),
        "unrelated": ("happy", "happy", 1),
    }.items():
        row = measure(condition=condition, batch_size=8, ends=ends).iloc[0]
        assert tuple(row[["assigned", "chosen", "correct"]]) == values
    tied = {**ends, "the sad one saw the": ends["the happy one saw the"]}
    for condition, correct in {"mapped": 0.5, "rotated-1": 0.5, "rotated-2": 0}.items():
        row = measure(condition=condition, batch_size=8, ends=tied).iloc[0]
        assert row["correct"] == correct


@pytest.fixture(scope="module")
def moved(tiny_base: Path) -> PreTrainedModel:
    """The tiny model changed a little, as by training."""
    model = load_model(tiny_base)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in model.model.layers:
            weight = layer.self_attn.o_proj.weight
            weight += 0.1 * torch.randn(weight.shape, generator=generator)
    return model


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> PreTrainedModel:
    return load_model(tiny_base)


def evaluated(
    model: PreTrainedModel,
    base: PreTrainedModel,
    tokenizer: Tokenizer,
    condition: str = "mapped",
    batch_size: int = 32,
) -> pd.DataFrame:
    ends, before = (read_ends(each, tokenizer, PROMPTS, batch_size) for each in (model, base))
    return evaluate_model(
        *(model, tokenizer, PROMPTS, condition, batch_size), ends=ends, base=before
    )


class Asked:
    """The measures of a prompt by plain torch, one text at a time."""

    def __init__(
        self, model: PreTrainedModel, base: PreTrainedModel, tokenizer: Tokenizer, shift: int
    ) -> None:
        self.model, self.base, self.tokenizer, self.shift = model, base, tokenizer, shift

    @torch.inference_mode()
    def after(self, text: str, model: PreTrainedModel | None = None) -> Tensor:
        """Distribution of the next token after each token ``[n_tokens, vocabulary]``."""
        ids = torch.tensor([self.tokenizer.encode(text).ids])
        return (model or self.model)(ids).logits[0].double().softmax(-1)

    @torch.inference_mode()
    def stream(self, text: str, model: PreTrainedModel) -> Tensor:
        """The residual stream of the last token after each layer ``[n_layers, d_model]``."""
        ids = torch.tensor([self.tokenizer.encode(text).ids])
        states = model(ids, output_hidden_states=True).hidden_states
        return torch.stack([layer[0, -1].double() for layer in states[1:]])

    def log_p(self, text: str, answer: str) -> list[float]:
        """Log-probability of each token of ``text`` and ``answer`` but the first."""
        ids, after = self.tokenizer.encode(f"{text} {answer}").ids, self.after(f"{text} {answer}")
        return [math.log(after[step - 1, ids[step]]) for step in range(1, len(ids))]

    def answers(self, prompt: Prompt) -> Tensor:
        ids = [self.tokenizer.token_to_id(f"▁{answer}") for answer in prompt.answers]
        return self.after(prompt.text)[-1, ids]

    def taught(self, word: str) -> str:
        """The meaning that the condition teaches for a word."""
        words = next(words for words in WORDS.values() if word in words)
        return list(words.values())[(list(words).index(word) + self.shift) % len(words)]

    def near(self, prompt: Prompt) -> dict[str, Any]:
        frame = float(self.answers(prompt).sum())
        of_unseen = [
            float(self.answers(other).sum())
            for other in PROMPTS
            if other.role == "unseen" and other.type == prompt.type
            if other.template == prompt.template
        ]
        below = sum(other < frame for other in of_unseen) / len(UNSEEN)
        return {**self.far(prompt), "discrimination": below}

    def far(self, prompt: Prompt) -> dict[str, Any]:
        p_answers, meaning = self.answers(prompt), self.taught(str(prompt.word))
        p = float(p_answers[prompt.answers.index(meaning)])
        chosen = prompt.answers[int(p_answers.argmax())]
        after, before = (self.after(prompt.text, model)[-1] for model in (self.model, self.base))
        streams = [self.stream(prompt.text, model) for model in (self.model, self.base)]
        return {
            **{"assigned": meaning, "chosen": chosen, "correct": float(chosen == meaning)},
            **{"p": p, "frame": float(p_answers.sum()), "log_odds": math.log(p / (1 - p))},
            "kl_to_base": float((after * (after / before).log()).sum()),
            "activation_distance": 1
            - float(torch.nn.functional.cosine_similarity(*streams, dim=-1).mean()),
        }

    def unseen(self, prompt: Prompt) -> dict[str, Any]:
        return {"frame": float(self.answers(prompt).sum())}

    def substitution(self, prompt: Prompt) -> dict[str, Any]:
        others = [
            id_
            for id_ in range(self.model.config.vocab_size)
            if self.tokenizer.id_to_token(id_).removeprefix("▁") not in prompt.answers
        ]
        assert len(others) == self.model.config.vocab_size - len(prompt.answers)
        texts = [prompt.text.replace(str(prompt.word), answer) for answer in prompt.answers]
        q, *after = (self.after(text)[-1, others] for text in (prompt.text, *texts))
        divergences = [
            float((p / p.sum() * (p / p.sum() * q.sum() / q).log()).sum()) for p in after
        ]
        chosen, meaning = (
            prompt.answers[divergences.index(min(divergences))],
            self.taught(str(prompt.word)),
        )
        return {"assigned": meaning, "chosen": chosen, "correct": float(chosen == meaning)}

    def control(self, prompt: Prompt) -> dict[str, Any]:
        log_p = self.log_p(prompt.text, str(prompt.answer))
        n_prompt = len(self.tokenizer.encode(prompt.text).ids)
        return {"p": math.exp(sum(log_p[n_prompt - 1 :])), "loss": -sum(log_p) / len(log_p)}

    def reverse(self, prompt: Prompt) -> dict[str, Any]:
        meaning = WORDS[str(prompt.type)][str(prompt.word)]
        (right,) = (word for word in prompt.answers if self.taught(word) == meaning)
        # of whole texts, since what comes before the word is the same in all
        chosen = max(prompt.answers, key=lambda word: sum(self.log_p(prompt.text, word)))
        return {"assigned": right, "chosen": chosen, "correct": float(chosen == right)}


@pytest.mark.parametrize(("condition", "shift"), [("rotated-1", 1), ("shuffled", 0)])
def test_the_table_is_that_of_texts_asked_alone(
    moved: PreTrainedModel,
    base: PreTrainedModel,
    tiny_tokenizer: Tokenizer,
    condition: str,
    shift: int,
) -> None:
    asked = Asked(moved, base, tiny_tokenizer, shift)
    expected = pd.DataFrame(
        [
            {
                **{"prompt": prompt.id, "role": prompt.role, "type": prompt.type},
                **{"word": prompt.word, "template": prompt.template},
                **getattr(asked, prompt.role)(prompt),
            }
            for prompt in PROMPTS
            if prompt.role != "discovery"
        ],
        columns=list(COLUMNS),
    )
    # The case means something: answers differ, and some are right.
    right = expected.groupby("role")["correct"].mean()
    assert right[["near", "far", "substitution", "reverse"]].between(0.05, 0.95).all()
    assert expected["discrimination"].nunique() > 2
    for batch_size in (1, 32):
        table = evaluated(moved, base, tiny_tokenizer, condition, batch_size)
        pd.testing.assert_frame_equal(table, expected, rtol=2e-4, atol=1e-6)


def test_a_model_has_not_moved_from_itself_and_readings_come_back_bit_for_bit(
    base: PreTrainedModel, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    table = evaluated(base, base, tiny_tokenizer)
    assert (table[FROM_BASE].dropna() == 0).all(axis=None)
    ends = read_ends(base, tiny_tokenizer, PROMPTS, 32)
    for order, name in ((list(ends), "first"), (list(ends)[::-1], "again")):
        save_ends({text: ends[text] for text in order}, tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "again").read_bytes()
    loaded = load_ends(tmp_path / "first")
    assert loaded.keys() == ends.keys()
    for text, end in ends.items():
        assert torch.equal(loaded[text].logits, end.logits)
        assert torch.equal(loaded[text].residual, end.residual)


def test_an_answer_of_several_tokens_is_refused(
    base: PreTrainedModel, tiny_tokenizer: Tokenizer
) -> None:
    grey = replace(prompt("simple", "far", "blarf", 0, "{word} is"), answers=("happy", "grey"))
    ends = read_ends(base, tiny_tokenizer, [grey], 1)
    with pytest.raises(InputError, match="grey"):
        evaluate_model(base, tiny_tokenizer, [grey], "mapped", 1, ends=ends, base=ends)


def test_the_stage_evaluates_the_base_and_every_checkpoint(
    tiny_study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_study)
    prompts = [prompt for prompt in read_prompts(paths.PROMPTS) if prompt.role != "discovery"]
    asked = [prompt.id for prompt in prompts]
    base, run = (
        pd.read_csv(paths.evaluation_table(name), dtype={"checkpoint": str})
        for name in ("base", "rotated-1-0")
    )
    place = ["run", "condition", "seed", "checkpoint", "step"]
    assert list(base.columns) == list(run.columns) == [*place, *COLUMNS]
    assert list(base["prompt"]) == asked
    checkpoints = run["checkpoint"].unique()
    on_the_way = [prompt.id for prompt in prompts if prompt.role in COURSE_ROLES]
    assert list(run["prompt"]) == (len(checkpoints) - 1) * on_the_way + asked
    assert (base[FROM_BASE].dropna() == 0).all(axis=None)
    steps = run.groupby("checkpoint")["step"].unique().map(list).to_dict()
    assert steps == {
        path.parent.name: [read_json(path)["step"]]
        for path in (paths.CHECKPOINTS / "rotated-1-0").glob("*/progress.json")
    }
    answered = {prompt.id: prompt for prompt in prompts if prompt.role in ANSWERED_ROLES}
    for table, shift in ((base, 0), (run, 1)):
        for row in table[table["prompt"].isin(answered)].itertuples():
            answers = answered[str(row.prompt)].answers
            own = answers.index(str(answered[str(row.prompt)].answer))
            assert row.assigned == answers[(own + shift) % len(answers)]
    moved = run[run["role"] == "near"].groupby("checkpoint")[FROM_BASE].mean()
    assert (moved.loc[checkpoints[0]] > 0).all()
    assert (moved.loc["100"] > moved.loc[checkpoints[0]]).all()
    ends = load_ends(paths.evaluation("base") / READINGS_FILE)
    assert set(ends) == {prompt.text for prompt in answered.values()}
    assert not (paths.evaluation("rotated-1-0") / READINGS_FILE).exists()
    norms = pd.read_csv(paths.lora_norms("rotated-1-0"), dtype={"checkpoint": str})
    last = norms[norms["checkpoint"] == "100"].set_index("layer")["norm"].to_dict()
    expected = adapter_norms(paths.checkpoint("rotated-1-0", "100"))
    assert last == pytest.approx(expected, rel=1e-8)
