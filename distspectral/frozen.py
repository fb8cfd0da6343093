"""What all config models and facts are: fixed once made, strict about what they are made of, clear about what not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Seed = Annotated[int, Field(ge=0, le=2**31 - 2)]
"""Of random choices; FAISS takes 32 bits with a sign, and some are made with the next."""

EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "finite_number": "a finite number",
    "bool": "true or false",
    "string": "text",
    "string_too_short": "at least {min_length} characters",
    "string_too_long": "at most {max_length} characters",
    "string_pattern_mismatch": "text that matches {pattern}",
    "literal_error": "{expected}",
    "enum": "{expected}",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "too_short": "at least {min_length} entries",
    "too_long": "at most {max_length} entries",
    "list": "a list",
    "tuple": "a list",
    "dict": "keys and values",
    "mapping": "keys and values",
    "model": "keys and values",
    "invalid_key": "keys that are text",
    "byte_size": "bytes, or text such as 1GiB",
    "byte_size_unit": "bytes, or text such as 1GiB",
    "none_required": "nothing",
    "recursion_loop": "values that do not hold themselves",
    "frozen_field": "no change",
    "is_instance_of": "a {class}",
}
"""By pydantic's name of a problem, or that name's first word."""


class FrozenModel(BaseModel):
    """A model whose values do not change, that refuses keys it does not know, and numbers that are not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def expected(problem: Mapping[str, Any]) -> str | None:
    """Return what one of pydantic's problems expects, in words; None where its message is one of ours.

    Args:
        problem: of ``ValidationError.errors()``.
    """
    kind = str(problem["type"])
    if kind in ("value_error", "assertion_error"):
        return None
    words = EXPECTED.get(kind) or EXPECTED.get(kind.partition("_")[0])
    bounds = problem.get("ctx", {}).items()
    told = {name: int(value) if isinstance(value, float) and value.is_integer() else value for name, value in bounds}
    return "another value" if words is None else words.format(**told)
