"""Parameters and attributes as plain values: what NumPy made becomes Python's own, at the door and in files.

A file of plain values and tensors is read back without unpickling code. Arrays are kept there as the bytes of an
``.npy`` file, so that every dtype that needs no pickle survives: dates, bytes and booleans, too.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distspectral.errors import ConfigError

ARRAY, OBJECTS, RANDOM_STATE = "numpy.ndarray", "numpy.ndarray of objects", "numpy.random.RandomState"
"""Sole keys of the dicts that stand for what is no plain value."""


def plain(value: Any) -> Any:
    """Return a parameter without NumPy's scalars and arrays, every sequence as a tuple; anything else as it is."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return tuple(map(plain, value)) if isinstance(value, list | tuple) else value


def stored(value: Any, name: str) -> Any:
    """Return what :func:`restored` makes an equal value of: plain values, tensors, and dicts, lists and tuples of them.

    Args:
        value: a parameter or an attribute, or a dict of them by name.
        name: of it, for the message.

    Raises:
        ConfigError: it is, or holds, something that only a pickle could keep.
    """
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str | Tensor):
        return value
    if isinstance(value, dict):
        return {key: stored(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(stored(item, name) for item in value)
    if isinstance(value, np.ndarray) and value.dtype.kind == "O":
        return {OBJECTS: stored(value.tolist(), name)}
    if isinstance(value, np.ndarray):
        content = io.BytesIO()
        np.save(content, value, allow_pickle=False)
        return {ARRAY: torch.frombuffer(content.getbuffer(), dtype=torch.uint8)}
    if isinstance(value, np.random.RandomState):
        state: Any = value.get_state(legacy=False)
        if state["bit_generator"] == "MT19937":  # what a RandomState holds unless someone gave it another
            return {RANDOM_STATE: stored(state, name)}
    raise ConfigError(
        f"{name}: is {value!r}, which a file without pickled code cannot hold; give numbers, strings, arrays, or "
        "lists and dicts of them, and fit again"
    )


def restored(value: Any) -> Any:
    """Return what :func:`stored` was given."""
    if isinstance(value, list | tuple):
        return type(value)(map(restored, value))
    if not isinstance(value, dict):
        return value
    if ARRAY in value:
        return np.load(io.BytesIO(value[ARRAY].numpy().tobytes()), allow_pickle=False)
    if OBJECTS in value:
        return np.array(value[OBJECTS], dtype=object)
    if RANDOM_STATE in value:
        generator = np.random.RandomState()
        generator.set_state(restored(value[RANDOM_STATE]))
        return generator
    return {key: restored(item) for key, item in value.items()}
