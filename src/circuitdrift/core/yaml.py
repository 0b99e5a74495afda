"""YAML 1.2 read and held against a pydantic model; refusals name file and key."""

from __future__ import annotations

import json
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from circuitdrift.core.errors import InputError, Problem

Model = TypeVar("Model", bound=BaseModel)


def read_yaml(path: Path) -> Any:
    """Content of a YAML 1.2 file, which is what DVC reads: 5e-4 is a number, object tags are none.

    Raises:
        InputError: if the file is missing, or is not plain YAML in UTF-8.
    """
    try:
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8-sig"))
        json.dumps(content, default=str, ensure_ascii=False).encode()  # half an emoji has no bytes
        return content
    except FileNotFoundError:
        problem = Problem(
            where=str(path),
            got="no such file",
            rule="the study reads it from the repository's root",
            remedy=f"change to the repository's root, or `git checkout -- {path.name}` there",
        )
    except (YAMLError, UnicodeError) as error:
        mark = getattr(error, "problem_mark", None)
        problem = Problem(
            where=path.name if mark is None else f"{path.name}, line {mark.line + 1}",
            got=(getattr(error, "problem", None) or str(error)).partition("\n")[0],
            rule="must be plain YAML in UTF-8: every key once, no object tags",
        )
    raise InputError(problem)


def validate(model: type[Model], value: Any, source: str) -> Model:
    """``value`` as a ``model``; ``source`` names the file that it was read from.

    Raises:
        InputError: with one problem per refused value.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        details = [detail for detail in error.errors() if not _items_refused(detail)]
    raise InputError(*(_problem(model, detail, source) for detail in details))


def _items_refused(detail: ErrorDetails) -> bool:
    """Whether a list is called too short only because its items were refused one by one."""
    return detail["type"] == "too_short" and len(detail["input"]) >= detail["ctx"]["min_length"]


def _problem(model: type[BaseModel], detail: ErrorDetails, source: str) -> Problem:
    location = detail["loc"]
    remedy = ""
    if detail["type"] == "extra_forbidden":
        known = _keys(model, location[:-1])
        near = get_close_matches(str(location[-1]), known, n=1)
        remedy = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
    elif detail["type"] == "string_type":  # such as NULL, no or 007
        remedy = "put it in quotation marks, if it is a word"
    return Problem(
        where=f"{source}: {'.'.join(map(str, location))}" if location else source,
        got=None if detail["type"] == "missing" else detail["input"],
        rule=detail["msg"],
        remedy=remedy,
    )


def _keys(model: type[BaseModel], section: tuple[int | str, ...]) -> list[str]:
    """Keys that ``model`` has in ``section``, which may be an entry of a list or a mapping."""
    fields = model.model_fields
    for part in section:
        if part in fields:
            annotation = fields[str(part)].annotation
            kinds = (annotation, *get_args(annotation))
            fields = next(
                (kind.model_fields for kind in kinds if hasattr(kind, "model_fields")), {}
            )
    return sorted(fields)
