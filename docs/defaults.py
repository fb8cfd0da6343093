"""Shows the defaults of the estimators as the values they have, not as the expressions that they come from."""

from __future__ import annotations

import inspect
import pydoc
from typing import Any

import griffe


class Defaults(griffe.Extension):
    """A Griffe extension: looks up what ``DEFAULTS.graph.n_neighbors`` is when the site is built."""

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Replace the defaults of a constructor of ours that are names of other things."""
        if func.name != "__init__" or ".estimators." not in func.path:
            return
        found = pydoc.locate(func.path)
        values = inspect.signature(found).parameters if callable(found) else {}
        for parameter in func.parameters:
            if parameter.name in values and values[parameter.name].default is not inspect.Parameter.empty:
                parameter.default = repr(values[parameter.name].default)
