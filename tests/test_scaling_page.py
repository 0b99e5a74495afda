from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import pytest

from circuitdrift.scaling import names as of
from circuitdrift.scaling.page import render_page
from circuitdrift.scaling.tables import Experiment
from circuitdrift.scaling.wording import amount, plain, shown, signed
from circuitdrift.sweeps.plan import Arm, Sweep
from simulated_sweep import (
    ONE_RUN,
    experiment,
    measure_table,
    simulated_experiments,
    simulated_sweep,
)
from study_plans import Plan
from study_tables import study_params

SWEEP = simulated_sweep()
EXPERIMENTS = simulated_experiments(SWEEP)
SECTIONS = [
    "Does more training teach more, and does more data?",
    "How do drift, overlap and the number of moved features grow with steps?",
    "What else does training change?",
    "Is it steps, or is it data?",
    "Are circuits as faithful?",
    "Could the original study have seen anything?",
    "What cannot be said",
    "Bring one back",
]


def page(
    sweep: Sweep = SWEEP,
    experiments: Sequence[Experiment] = EXPERIMENTS,
    figures: Sequence[str] = (),
    missing: Sequence[str] = (),
) -> str:
    return render_page(study_params(ONE_RUN), sweep, experiments, missing, figures)


def without_arms(*kinds: str) -> Sweep:
    return Sweep(
        tuple(arm for arm in SWEEP.arms if arm.kind not in kinds), SWEEP.members, memory_gb=1
    )


def bare(one: Experiment) -> Experiment:
    """With accuracy and loss alone: no circuit was compared."""
    return replace(
        one,
        measures=one.measures[one.measures["measure"].isin([of.ACCURACY, of.LOSS])],
        prompts={},
    )


def undefined() -> list[Experiment]:
    """Nothing trained moves, and everything is alike."""
    values: dict[str, float | tuple[float, float, float]] = {
        of.ACCURACY: (0.0, 0.0, 0.0),
        of.BASE_ACCURACY: (0.0, 0.0, 0.0),
        of.ACCURACY_GAIN: (0.0, 0.0, 0.0),
        of.DRIFT: (0.0, 0.0, 0.0),
        of.CMD: (0.5, 0.1, float("inf")),
        of.CMD_RANDOM: (0.5, float("-inf"), float("inf")),
    }
    return [replace(one, measures=measure_table(values), prompts={}) for one in EXPERIMENTS]


def test_every_question_has_its_section_and_its_numbers() -> None:
    text = page()
    assert re.findall("^## (.+)$", text, re.MULTILINE) == SECTIONS
    assert (
        "accuracy on held-out sentences ranges from 0.330 [0.230, 0.430] after 4 steps"
        " (`epochs-1.n_examples-25`) to 0.670 [0.570, 0.770] after 21 steps"
        " (`epochs-3.n_examples-50`), the lowest and the highest found; the base model's is"
        " 0.250 [0.100, 0.400]."
    ) in text
    assert (
        "From 1 to 3 `train.epochs`, all else equal: accuracy differs by +0.160 to +0.280,"
        " its interval above 0 in 2 and below 0 in 0 of 2 comparisons;"
    ) in text
    assert "rank correlation with steps 1.000, n = 5" in text
    assert (
        "In all 5 experiments the interval of drift beyond random adapters lies above 0.02" in text
    )
    assert "in 5 of 5 experiments the interval of a model's own circuits lies wholly below" in text
    assert "- `dvc exp apply original`" in text


def test_the_ladder_is_told_rung_by_rung() -> None:
    text = page()
    assert (
        "`original` stands at the foot of the arm `ladder`: 9 examples, batches of 1, 27 steps."
        in text
    )
    assert "the run ends 27 % up the ramp, at 5.4e-06 at most of 2e-05. On this model" in text
    assert "`train.warmup_steps` 100 → 0" in text
    assert (
        "Rungs take 27 steps, save `epochs-3.n_examples-50` (21): there, steps change with" in text
    )
    assert "; steps 27 → 21): +0.4" in text
    assert re.search(
        r"The first whose gain in accuracy lies above 0\.2 \(`verdicts\.min_accuracy_gain`\) is"
        r" `epochs-3\.n_examples-50` \(`dataset\.n_examples` 9 → 50, ",
        text,
    )
    assert "The change that moved drift of task prompts most: `epochs-3.n_examples-50`" in text


def test_a_ladder_of_equal_steps_says_so() -> None:
    equal = [replace(one, steps=27) for one in EXPERIMENTS]
    text = page(experiments=equal)
    assert "Every rung takes 27 steps, so that no change is one of the number of steps." in text
    assert "; steps" not in text


def test_what_the_mapping_does_not_ask_for_has_its_section() -> None:
    text = page()
    assert "- **Drift of control prompts**: 0.038" in text
    assert "- **Forgetting**: -0.100 [-0.200, 0.000] after 4 steps" in text
    assert "- **Probability on unseen words**: 0.500" in text


def test_all_prompts_right_are_not_called_certain() -> None:
    right = [
        replace(one, measures=measure_table({of.ACCURACY: (1.0, 1.0, 1.0), of.CHANCE: 1 / 3}))
        for one in EXPERIMENTS
    ]
    text = page(experiments=right)
    # .025 ** (1 / 4) for four prompts
    assert (
        "Where all 4 are right the bootstrap says [1, 1]; the exact interval starts at 0.398"
        in text
    )
    assert "among the answers of its type; by guessing, 0.333." in text
    assert "the exact interval" not in page()


def test_the_page_turns_with_the_findings() -> None:
    text = page(experiments=simulated_experiments(SWEEP, learns=False))
    assert "No rung gives the right answer more probability than the base model by 0.2" in text
    assert "that teaches nothing of the size that is asked (0.2" in text
    assert "No rung's gain in accuracy lies with its interval above 0.2" in text
    assert "No rung's drift beyond random adapters" in text
    assert "In 0 of 5 experiments the interval of drift beyond random adapters" in text
    assert "above 0 in 0 and below 0 in 0 of 2 comparisons" in text


def test_sizes_at_equal_steps_are_told_apart_from_steps() -> None:
    assert "for 7 to 8 steps, so size and steps are not told apart in full" in page()
    equal = [
        replace(one, steps=7) if one.name == "epochs-2.n_examples-25" else one
        for one in EXPERIMENTS
    ]
    text = page(experiments=equal)
    assert "for 7 steps each, so what differs within it is the data." in text
    assert "- **Accuracy**: from fewest to most examples -0.020" in text
    assert "range over sizes 0.020, over steps 0.160, 0.280." in text
    assert "(mean of the sizes): accuracy 9 %," in text
    assert "Sizes differ by a factor of 2, the steps of a size by 3, 3." in text


def test_one_seed_says_what_it_cannot_say() -> None:
    text = page()
    for said in (
        "over prompts alone: each experiment has one seed",
        "One seed an experiment: how far a second seed would lie",
        "One seed has no ceiling",
        "**Recruited nodes**: not testable.",
        "Without runs of `shuffled`",
        "so they are not independent draws and no p is given",
    ):
        assert said in text


def test_several_seeds_and_conditions_say_less_of_that() -> None:
    plan = Plan(seeds=(0, 1))
    sweep = simulated_sweep(plan)
    experiments = [
        replace(one, measures=measure_table({of.ACCURACY: (0.5, 0.4, 0.6), of.RECRUITED: 12}, 2))
        for one in simulated_experiments(sweep)
    ]
    text = page(sweep, experiments)
    assert "seeds resampled first, then prompts." in text
    assert "One seed" not in text
    assert "not testable" not in text
    assert "Without runs of `shuffled`" not in text


@pytest.mark.parametrize(
    ("sweep", "experiments", "said"),
    [
        (without_arms("ladder"), EXPERIMENTS, "This takes an arm of kind `ladder`"),
        (without_arms("together"), EXPERIMENTS, "This takes an arm of kind `together`"),
        (without_arms("product", "together"), EXPERIMENTS, "No experiment that varies training"),
        (without_arms("product"), EXPERIMENTS, "No arm of the sweep has two finished experiments"),
        (without_arms("product"), EXPERIMENTS, "no arm with other epochs at one size is finished"),
        (SWEEP, EXPERIMENTS[:1], "1 experiment on gemma-3-270m"),
        (SWEEP, EXPERIMENTS[-1:], "Its learning rate is 2e-05."),
        (SWEEP, [bare(one) for one in EXPERIMENTS], "no finished experiment has a circuit"),
        (SWEEP, undefined(), "in 0 of 5 experiments the interval of a model's own circuits"),
    ],
)
def test_a_reduced_sweep_says_what_it_lacks(
    sweep: Sweep, experiments: Sequence[Experiment], said: str
) -> None:
    text = page(sweep, experiments)
    assert re.findall("^## (.+)$", text, re.MULTILINE) == SECTIONS
    assert said in text
    assert re.findall(r"\b(nan|NaN|None|inf)\b|[{}]|\n\n\n", text) == []


def test_nothing_undefined_is_printed_and_tables_are_whole() -> None:
    text = page(figures=["grid", "by_steps", "ladder"])
    assert re.findall(r"\b(nan|NaN|None|inf)\b|[{}]|\n\n\n", text) == []
    for block in text.split("\n\n"):
        assert "|" not in block or block.startswith(("|", "`accuracy`")), block


def test_only_drawn_figures_are_shown() -> None:
    assert "(figures/" not in page()
    shown_figures = re.findall(r"\(figures/(\w+)\.png\)", page(figures=["ladder", "grid"]))
    assert shown_figures == ["grid", "ladder"]


def test_unfinished_experiments_are_named() -> None:
    text = page(missing=["epochs-9.n_examples-9", "another"])
    assert "**Not finished, and not on this page:** `epochs-9.n_examples-9`, `another`." in text


def test_an_arm_of_another_key_is_told_by_its_own_name() -> None:
    ranks = Arm("rates", "product", ("train.learning_rate",), ("original", "no-warm-up"))
    text = page(Sweep((ranks,), SWEEP.members, memory_gb=1))
    assert "No arm of the sweep has two finished experiments" in text  # the rates are the same


def test_counts_have_no_decimals_and_differences_have_signs() -> None:
    count = {"measure": of.MOVED, "mean": 1234.4, "low": 1000.0, "high": 1500.0}
    assert shown(count) == "1234 [1000, 1500]"
    share = {"measure": of.ACCURACY, "mean": 0.25, "low": -0.125, "high": float("inf")}
    assert signed(share) == "+0.250 [-0.125, +∞]"
    assert shown({**share, "low": float("nan")}) == "0.250"
    assert shown({**share, "mean": float("nan")}) == "-"
    assert amount(float("nan"), of.MOVED) == "-"
    assert [plain(value) for value in (3.0, 5e-4, "answer", 9)] == ["3", "0.0005", "answer", "9"]


def test_a_single_experiment_of_a_product_is_not_correlated() -> None:
    alone = experiment(SWEEP.members[0], measures={of.ACCURACY: 0.5})
    assert "Spearman" not in page(experiments=[alone])
