"""Training examples of every run: balanced over words, seeded, and nested.

They are drawn from a pool of sentences (:mod:`circuitdrift.data.pool`). A run's name seeds every
draw, so that no two runs share one. The first 25 of 50 `mapped` or rotated examples are the 25 that
``n_examples: 25`` gives, so that a study of dataset size varies the size alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from random import Random

from circuitdrift.core.errors import InputError, Problem
from circuitdrift.core.prompts import Example
from circuitdrift.core.study import ASSIGNED, Run, assigned
from circuitdrift.data.constraints import Constraints, filled, vocabulary, words_in

FOILS = 14 / 50  # of the examples of the condition foils
REVERSED = 1 / 3  # of those of the condition both-ways


def template_examples(constraints: Constraints) -> list[Example]:
    """Every distinct sentence that the training templates give."""
    examples = []
    for name, type_ in constraints.types.items():
        for word, meaning in type_.words.items():
            for template in type_.training:
                examples.append(_sentence(template, name, word, meaning))
    return examples


def _sentence(template: str, type_: str, word: str, meaning: str) -> Example:
    text, starts = filled(template, {"word": word, "meaning": meaning})
    return Example(text, type_, word, meaning, starts["meaning"])


def unrelated_sentences(constraints: Constraints) -> list[Example]:
    """Every unrelated sentence that says no word and no meaning of the constraints.

    Its type is ``unrelated``, it is about no word, and its last word takes the meaning's place.
    """
    unrelated, words = constraints.unrelated, vocabulary(constraints)
    return [
        Example(text, "unrelated", word="", meaning=text[start:], start=start)
        for sentence in unrelated.sentences
        for text in unrelated.filled(sentence)
        if not words_in(text, words)
        for start in [text.rindex(" ") + 1]
    ]


def run_examples(
    run: Run, constraints: Constraints, pool: Sequence[Example], n: int
) -> list[Example]:
    """The ``n`` training examples of a run.

    Raises:
        InputError: if there are too few sentences for them.
    """
    if problem := refused_count(run.condition, constraints, pool, n):
        raise InputError(problem)
    if run.condition == "unrelated":
        return make_unrelated(unrelated_sentences(constraints), n, run.name)
    if run.condition == "foils":
        n_foils = round(n * FOILS)
        drawn = make_examples(pool, n - n_foils, run.name)
        return drawn + foil_examples(constraints, n_foils, run.name)
    if run.condition == "both-ways":
        n_reversed = round(n * REVERSED)
        drawn = make_examples(pool, n - n_reversed, run.name)
        return drawn + make_examples(
            reversed_pool(constraints, run.name), n_reversed, f"{run.name}/reversed"
        )
    drawn = make_examples(pool, n, run.name)
    if run.condition == "shuffled":
        return shuffle_meanings(drawn, constraints, run.name)
    return [_assigned(example, run.condition, constraints) for example in drawn]


def _assigned(example: Example, condition: str, constraints: Constraints) -> Example:
    """The example with the meaning that its run teaches for its word."""
    if not ASSIGNED[condition]:
        return example
    meanings = tuple(constraints.types[example.type].words.values())
    own = meanings.index(example.meaning)
    return example.with_meaning(meanings[assigned(condition, own, len(meanings))])


def foil_examples(constraints: Constraints, n: int, run: str) -> list[Example]:
    """``n`` training frames around foils, which have answers of their own; the types take turns.

    A type's foils and its templates are paired at random, each used once.
    """
    by_type = {}
    for name, type_ in constraints.types.items():
        templates, foils = list(type_.training), list(type_.foils.items())
        Random(f"{run}/frames/{name}").shuffle(templates)
        by_type[name] = [
            _sentence(template, name, word, answer)
            for template, (word, answer) in zip(templates, foils, strict=False)
        ]
    return _in_turns(by_type, f"{run}/foils")[:n]


def reversed_pool(constraints: Constraints, run: str) -> list[Example]:
    """Every sentence from meaning to word about half of each type's words, rounded up.

    The run's name chooses them.
    """
    return [
        _sentence(template, name, word, type_.words[word])
        for name, type_ in constraints.types.items()
        for word in Random(f"{run}/reversed/{name}").sample(
            tuple(type_.words), math.ceil(len(type_.words) / 2)
        )
        for template in type_.reverse_training
    ]


def make_examples(pool: Sequence[Example], n: int, run: str) -> list[Example]:
    """Draw ``n`` examples of ``pool``, balanced over its words.

    Words take turns, in a new order each round, and each gives its own sentences in a shuffled
    order; both orders depend on the run's name and the words alone.
    """
    by_word: dict[str, list[Example]] = {}
    for example in pool:
        by_word.setdefault(example.word, []).append(example)
    return _in_turns(by_word, run)[:n]


def make_unrelated(pool: Sequence[Example], n: int, run: str) -> list[Example]:
    """The unrelated condition: ``n`` examples of ``pool``.

    Last words take turns as words do in :func:`make_examples`.
    """
    by_ending: dict[str, list[Example]] = {}
    for example in pool:
        by_ending.setdefault(example.meaning, []).append(example)
    return _in_turns(by_ending, run)[:n]


def _in_turns(by_word: Mapping[str, Sequence[Example]], run: str) -> list[Example]:
    """All examples, in rounds in which each word gives one while it has any."""
    shuffled = {word: list(sentences) for word, sentences in by_word.items()}
    for word, sentences in shuffled.items():
        Random(f"{run}/sentences/{word}").shuffle(sentences)
    drawn: list[Example] = []
    turns = Random(f"{run}/turns")
    for turn in range(max(map(len, shuffled.values()), default=0)):
        words = [word for word, sentences in shuffled.items() if turn < len(sentences)]
        turns.shuffle(words)
        drawn.extend(shuffled[word][turn] for word in words)
    return drawn


def refused_count(
    condition: str, constraints: Constraints, pool: Sequence[Example], n: int
) -> Problem | None:
    """The problem of drawing a run's ``n`` examples of this condition, if it is one."""
    where = "params.yaml: dataset.n_examples"
    for what, part, fewest, most in _parts(condition, constraints, pool, n):
        if not fewest <= part <= most:
            rule = f"{part} of them are {what}, of which the condition {condition} has {fewest}"
            remedy = f"lower it, or add {what}" if part > most else "raise it"
            return Problem(where, n, f"{rule} to {most}", remedy)
    return None


def _parts(
    condition: str, constraints: Constraints, pool: Sequence[Example], n: int
) -> Iterator[tuple[str, int, int, int]]:
    """What a condition's ``n`` examples are: so many of a kind, the fewest and the most of it."""
    if condition == "unrelated":
        yield "unrelated sentences", n, 1, len(unrelated_sentences(constraints))
        return
    part = 0
    if condition == "foils":
        part = round(n * FOILS)
        foils = [min(len(t.training), len(t.foils)) for t in constraints.types.values()]
        yield "foils", part, 0, sum(foils)
    if condition == "both-ways":
        part = round(n * REVERSED)
        yield "reversed training sentences", part, 0, _most(reversed_pool(constraints, ""))
    n_words = len({example.word for example in pool})
    yield "training sentences, balanced over words", n - part, n_words, _most(pool)


def _most(pool: Sequence[Example]) -> int:
    """How many balanced examples a pool can give: counts per word differ by at most one, so the
    word with the fewest sentences sets the limit."""
    counts = Counter(example.word for example in pool).values()
    return sum(min(count, min(counts) + 1) for count in counts)


def shuffle_meanings(
    examples: Sequence[Example], constraints: Constraints, run: str
) -> list[Example]:
    """The shuffled condition: the same sentences with the meanings of each type dealt out anew.

    For each word the meanings of its type appear equally often (counts differ by at most one), and
    each meaning appears as often as before. ``examples`` must come from :func:`make_examples`.

    A type's words take turns in ``examples``, so its k-th examples form a round. In a round every
    word gets the meaning a fixed shift further down the type's list, and over each len(words)
    rounds every shift occurs once. Only the last round can lack some words. There each word keeps
    its own meaning, so that each meaning is there as often as before; the whole rounds left over
    before it never use that shift, so that no word gets its own meaning twice as often.
    """
    dealt = {
        name: _deal(examples, name, tuple(type_.words.items()), Random(f"{run}/shuffled/{name}"))
        for name, type_ in constraints.types.items()
    }
    return [example.with_meaning(dealt[example.type].pop(0)) for example in examples]


def _deal(
    examples: Sequence[Example], name: str, words: Sequence[tuple[str, str]], random: Random
) -> list[str]:
    """The new meanings of the examples of type ``name``, in their order."""
    order = [word for word, _ in words]
    counts = Counter(example.word for example in examples if example.type == name)
    full_rounds = min(counts[word] for word in order)
    whole, rest = divmod(full_rounds, len(order))
    shifts = [shift for _ in range(whole) for shift in random.sample(range(len(order)), len(order))]
    shifts += random.sample(range(1, len(order)), rest)
    shifts.append(0)

    turn: Counter[str] = Counter()
    meanings = []
    for example in examples:
        if example.type == name:
            position = order.index(example.word) + shifts[turn[example.word]]
            meanings.append(words[position % len(order)][1])
            turn[example.word] += 1
    return meanings
