"""Arrays and texts as short strings for the page: little-endian bytes, deflated, in base64.

The page's script opens them with the browser's own ``DecompressionStream``, so nothing is loaded for that.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


def packed(array: NDArray[Any]) -> str:
    """Return an array's values in row order."""
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return deflated(np.ascontiguousarray(little).tobytes())


def packed_json(value: Any) -> str:
    """Return plain values as JSON, so packed."""
    return deflated(json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode())


def deflated(content: bytes) -> str:
    """Return bytes deflated, in base64."""
    return base64.b64encode(zlib.compress(content, 6)).decode()


def whole_type(most: int) -> str:
    """Return the narrowest type of unsigned integers up to ``most``."""
    return next(kind for kind in ("uint8", "uint16", "uint32") if most <= np.iinfo(kind).max)


def first_that_fits(made: Iterable[T], weight: Callable[[T], int], budget: int) -> T | None:
    """Return the first of several versions, the richest first, that weighs at most ``budget`` bytes; None of none."""
    return next((one for one in made if weight(one) <= budget), None)


def shortened(texts: Sequence[str | None], length: int) -> list[str | None]:
    """Return texts of at most so many characters, an ellipsis in place of the rest."""
    return [text if text is None or len(text) <= length else text[: length - 1] + "…" for text in texts]
