"""YAML read and held against a pydantic model, with every refusal in the project's words."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from circuitdrift.errors import InputError, Problem

Model = TypeVar("Model", bound=BaseModel)

_RULES = {
    "extra_forbidden": "no such key",
    "missing": "the key is required",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping of keys to values",
    "model_type": "must be a section of keys and values",
    "model_attributes_type": "must be a section of keys and values",
}


def read_yaml(path: Path) -> Any:
    """Parse YAML 1.2 (as DVC does), so that 5e-4 is a number and object tags are refused.

    Raises:
        InputError: if the file is missing or is not plain YAML in UTF-8.
    """
    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        problem = Problem(
            where=str(path),
            got="no such file",
            rule="the study reads it from the repository's root",
            remedy=f"change to the repository's root, or `git checkout -- {path.name}` there",
        )
    except (YAMLError, UnicodeDecodeError) as error:
        problem = _not_yaml(path, error)
    raise InputError(problem)


def validate(model: type[Model], value: Any, source: str) -> Model:
    """``model.model_validate(value)``; ``source`` names the file that ``value`` was read from.

    Raises:
        InputError: with one problem per refused value.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        details = [detail for detail in error.errors() if not _follows_from_items(detail)]
    problems = [_problem(model, detail, source) for detail in details]
    raise InputError(*problems)


def _not_yaml(path: Path, error: YAMLError | UnicodeDecodeError) -> Problem:
    where, got = path.name, str(error)
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        where = f"{path.name}, line {error.problem_mark.line + 1}"
        got = (error.problem or got).partition("\n")[0]
    return Problem(
        where=where,
        got=got,
        rule="must be plain YAML in UTF-8: every key once, no object tags",
        remedy="mend that line",
    )


def _follows_from_items(detail: ErrorDetails) -> bool:
    """Whether a list is called too short only because its items were refused one by one."""
    return detail["type"] == "too_short" and len(detail["input"]) >= detail["ctx"]["min_length"]


def _problem(model: type[BaseModel], detail: ErrorDetails, source: str) -> Problem:
    location = detail["loc"]
    where = f"{source}: {_dotted(location)}" if location else source
    if detail["type"] == "missing":
        return Problem(where, "nothing", _rule(detail), _remedy(model, location, verb="add"))
    if detail["type"] == "extra_forbidden":
        known = sorted(_fields(_descend(model, location[:-1])))
        remedy = _suggestion(location[-1], known) or f"remove it; known: {', '.join(known)}"
        return Problem(where, detail["input"], _rule(detail), remedy)
    choices = re.findall(r"'([^']+)'", str(detail.get("ctx", {}).get("expected", "")))
    remedy = _suggestion(detail["input"], choices) or _remedy(model, location, verb="set")
    return Problem(where, detail["input"], _rule(detail), remedy)


def _rule(detail: ErrorDetails) -> str:
    if detail["type"] == "too_short":
        least = detail["ctx"]["min_length"]
        return f"must have at least {least} {'entry' if least == 1 else 'entries'}"
    rule = detail["msg"].removeprefix("Value error, ")
    rule = re.sub(r"^(Input|\w+) should", "must", rule)
    return _RULES.get(detail["type"], rule)


def _suggestion(got: object, known: list[str]) -> str | None:
    close = difflib.get_close_matches(str(got), known, n=1)
    return f"did you mean {close[0]!r}?" if close else None


def _remedy(model: type[BaseModel], location: tuple[int | str, ...], verb: str) -> str:
    """What to set the innermost described key of ``location`` to."""
    for depth in range(len(location), 0, -1):
        field = _fields(_descend(model, location[: depth - 1])).get(str(location[depth - 1]))
        if field is not None and field.description:
            joint = ":" if verb == "add" else " to"
            return f"{verb} {_dotted(location[:depth])}{joint} {field.description}"
    return "write it as in the file that git keeps (`git diff` shows what changed)"


def _dotted(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location)


def _fields(annotation: Any) -> dict[str, FieldInfo]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation.model_fields
    return {}


def _descend(annotation: Any, location: tuple[int | str, ...]) -> Any:
    """The type that a value at ``location`` inside a value of type ``annotation`` has, or None."""
    for part in location:
        while get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        if fields := _fields(annotation):
            annotation = fields[str(part)].annotation if str(part) in fields else None
        elif get_origin(annotation) is dict:
            annotation = get_args(annotation)[1]
        elif get_origin(annotation) is tuple:
            annotation = get_args(annotation)[0]
        else:
            return None
    return annotation
