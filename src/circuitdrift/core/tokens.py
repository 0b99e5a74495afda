"""Texts in the base model's tokens: its beginning token in front, and nothing behind.

A tokenizer may have been saved so that it adds an end to every text; every prompt would then be
read as over. It may put a space in front of a text, or join words otherwise than a space would
tell; so an answer's token is looked for where the answer stands, behind its prompt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tokenizers import Tokenizer

from circuitdrift.core.errors import InputError, Problem
from circuitdrift.core.files import of_base_model
from circuitdrift.core.prompts import Example, Prompt

# Roles whose answers may be longer than a token, or do not follow the prompt.
SEVERAL_TOKENS_ROLES = ("control", "reverse", "substitution")


@dataclass(frozen=True)
class Encoded:
    """A text in tokens.

    Attributes:
        marked: positions of the tokens that stand for the marked characters, ascending.
        n_front: so many tokens in front stand for no characters; 1 with a beginning token.
    """

    ids: tuple[int, ...]
    marked: tuple[int, ...]
    n_front: int

    @property
    def marked_ids(self) -> list[int]:
        return [self.ids[position] for position in self.marked]


def load_tokenizer(directory: Path) -> Tokenizer:
    """The tokenizer of a model's directory, which cuts no text short and pads none."""
    file = of_base_model(directory, "tokenizer.json")
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def encode(tokenizer: Tokenizer, text: str, span: tuple[int, int] = (0, 0)) -> Encoded:
    """Encode ``text`` and mark the tokens that overlap the characters ``span[0]:span[1]``.

    Raises:
        InputError: if the text spells a special token, which would be read as what it stands for.
    """
    encoding = tokenizer.encode(text)
    tokens, offsets = encoding.tokens, encoding.offsets  # made anew at each look
    of_text = [position for position, added in enumerate(encoding.special_tokens_mask) if not added]
    special = _special(tokenizer)
    for position in of_text:
        token = tokens[position]
        # What the tokenizer does not know becomes a special token that the text does not spell.
        if token in special and text[slice(*offsets[position])].strip() == token:
            rule = f"no text spells a special token of the base model, as this does {token}"
            remedy = "take it out: a beginning token is put in front, and no end is wanted"
            raise InputError(Problem(f"the text {text!r}", token, rule, remedy))
    marked = tuple(
        position
        for position in of_text
        if offsets[position][0] < span[1] and offsets[position][1] > span[0]
    )
    return Encoded(tuple(encoding.ids[: of_text[-1] + 1]), marked, n_front=of_text[0])


@cache
def _special(tokenizer: Tokenizer) -> frozenset[str]:
    added = tokenizer.get_added_tokens_decoder().values()
    return frozenset(token.content for token in added if token.special)


def answer_id(tokenizer: Tokenizer, before: str, answer: str) -> int:
    """The token that ``answer`` is where it follows ``before`` and a space.

    Raises:
        InputError: if that is not exactly one token.
    """
    prompt, whole = encode(tokenizer, before).ids, encode(tokenizer, f"{before} {answer}").ids
    if whole[:-1] != prompt:
        raise _not_one_token(tokenizer, answer, before, whole)
    return whole[-1]


def encode_example(tokenizer: Tokenizer, example: Example) -> Encoded:
    """Encode a training sentence and mark its meaning.

    Raises:
        InputError: if the meaning is not the token there that it is behind a prompt.
    """
    encoded = encode(tokenizer, example.text, example.answer_span)
    if encoded.marked_ids != [answer_id(tokenizer, example.before, example.meaning)]:
        raise _not_one_token(tokenizer, example.meaning, example.text, encoded.ids)
    return encoded


def check_tokens(
    tokenizer: Tokenizer, prompts: Sequence[Prompt], examples: Sequence[Example]
) -> None:
    """Hold every text against the base model's tokenizer.

    Raises:
        InputError: naming each text that spells a special token, each answer that is not one
            token, the same after every prompt and in every training sentence, and answers of one
            type that are the same token.
    """
    problems: dict[str, Problem] = {}
    token_of: dict[str, int] = {}
    for prompt in prompts:
        for answer in dict.fromkeys(filter(None, (prompt.answer, *prompt.answers))):
            with _refusals_go_to(problems):
                if prompt.role in SEVERAL_TOKENS_ROLES:
                    encode(tokenizer, f"{prompt.text} {answer}")
                    continue
                token = answer_id(tokenizer, prompt.text, answer)
                if token_of.setdefault(answer, token) != token:
                    raise _not_one_token(tokenizer, answer, prompt.text, (token_of[answer], token))
    problems |= {problem.where: problem for problem in _same_tokens(prompts, token_of)}
    for example in examples:
        with _refusals_go_to(problems):
            if example.start is None:
                encode(tokenizer, example.text)
                continue
            (token,) = encode_example(tokenizer, example).marked_ids
            if token_of.setdefault(example.meaning, token) != token:
                ids = (token_of[example.meaning], token)
                raise _not_one_token(tokenizer, example.meaning, example.text, ids)
    if problems:
        raise InputError(*problems.values())


def _same_tokens(prompts: Sequence[Prompt], token_of: Mapping[str, int]) -> Iterator[Problem]:
    """A problem for each type of which some meanings are one token."""
    answers = {
        prompt.type: prompt.answers for prompt in prompts if prompt.role not in SEVERAL_TOKENS_ROLES
    }
    for type_, meanings in answers.items():
        counts = Counter(map(token_of.get, meanings))
        same = [one for one in meanings if one in token_of and counts[token_of[one]] > 1]
        if same:
            yield Problem(
                where=f"dataset.constraints: types.{type_}.words",
                got=", ".join(same),
                rule="each meaning of a type is another token of the base model: their logits "
                "could not differ",
                remedy="choose other meanings, or another base.model",
            )


@contextmanager
def _refusals_go_to(problems: dict[str, Problem]) -> Iterator[None]:
    """A refusal inside goes to ``problems``, the first of each place."""
    try:
        yield
    except InputError as error:
        for problem in error.problems:
            problems.setdefault(problem.where, problem)


def _not_one_token(tokenizer: Tokenizer, answer: str, text: str, ids: Sequence[int]) -> InputError:
    return InputError(
        Problem(
            where=f"the answer {answer!r}",
            got=f"{text!r}, whose tokens end in {[tokenizer.id_to_token(i) for i in ids[-4:]]}",
            rule="an answer is one token of the base model, the same after every prompt and in "
            "every training sentence, so that its logit is one number",
            remedy="choose a commoner word, put no letters or marks right behind it, or choose "
            "another base.model",
        )
    )
