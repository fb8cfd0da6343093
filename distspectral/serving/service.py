"""A request's body to rows, rows to results, results to a body: all of serving that is neither HTTP nor Ray.

Two kinds of body are read, and answered in kind: JSON, and for speed ``.npy``, whose header says its size, so that a
small body cannot unfold into a large one as a compressed Arrow stream can.

Shape letters: B rows, D features, P components.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, FailFast, FiniteFloat, ValidationError

from distspectral.errors import (
    DistSpectralError,
    RequestError,
    RequestTooLargeError,
    UnfitRowError,
    UnsupportedBodyError,
)
from distspectral.models.networks import torch_device
from distspectral.serving.predictor import Predictor
from distspectral.storage.source.formats.raw import read_npy_header

JSON = "application/json"
NPY = "application/x-npy"
NPZ = "application/x-npz"
REPLIES = {JSON: JSON, NPY: NPZ}
"""Type of the answer, by that of the request."""

JSON_BYTES = 32
"""Most bytes of a number in JSON, its comma and space included; Python writes 26 at most."""

SHOWN_CHARACTERS = 40
"""Of a value in a message at most."""

Answer = dict[str, NDArray[Any]]
"""Outputs of one request's rows by name."""


class _Body(BaseModel):
    """What a JSON body holds."""

    model_config = ConfigDict(extra="forbid", strict=True)

    vectors: Annotated[list[Annotated[list[FiniteFloat], FailFast()]], FailFast()]


class Service:
    """Answers requests with one model.

    Args:
        predictor: the model.
        max_rows: rows of a request at most.
        device: ``auto``, ``cpu`` or ``cuda``.
    """

    def __init__(self, predictor: Predictor, max_rows: int, device: str = "auto") -> None:
        self.predictor, self.max_rows = predictor, max_rows
        self.device = torch_device(device)
        self.module = predictor.module.to(self.device)

    @property
    def max_bytes(self) -> int:
        """Bytes of a body at most."""
        return 4096 + self.max_rows * (4 + self.predictor.dim * JSON_BYTES)

    def refuse_size(self, n_bytes: int) -> None:
        """Refuse a body by its length, before it is parsed.

        Raises:
            RequestTooLargeError: it is longer than ``max_rows`` rows can be.
        """
        if n_bytes > self.max_bytes:
            raise RequestTooLargeError(
                f"body: has {n_bytes} bytes, {self.max_rows} rows need at most {self.max_bytes}; send fewer rows"
            )

    def rows(self, content_type: str, body: bytes) -> NDArray[np.float32]:
        """Return a body's rows, (B, D) float32, framed as those of the training data were.

        Args:
            content_type: of the body, as HTTP names it.
            body: ``{"vectors": [[...], ...]}`` or the bytes of ``numpy.save`` of a (B, D) array.

        Raises:
            UnsupportedBodyError: it is neither.
            RequestTooLargeError: more than ``max_rows`` rows.
            RequestError: the rows have another width, or values that are no finite numbers.
        """
        self.refuse_size(len(body))
        kind = media_type(content_type)
        raw = self._from_json(body) if kind == JSON else self._from_npy(body)
        frame = self.predictor.frame
        rows = frame.framed(raw)
        if not frame.holds(rows):
            row, feature, problem = frame.first_misfit(raw, rows)
            raise RequestError(f"row {row}, feature {feature}: {problem}; repair the row")
        return rows

    @torch.inference_mode()
    def answers(self, requests: Sequence[NDArray[np.float32]]) -> list[Answer]:
        """Return each request's outputs; all rows pass the network together.

        Args:
            requests: :meth:`rows` of each.
        """
        together = torch.from_numpy(np.concatenate(requests)).to(self.device)
        outputs = [output.cpu().numpy() for output in self.module(together)]
        ends = np.cumsum([len(rows) for rows in requests])[:-1]
        parts = [np.split(output, ends) for output in outputs]
        return [dict(zip(self.predictor.outputs, one, strict=True)) for one in zip(*parts, strict=True)]

    def _from_json(self, body: bytes) -> NDArray[np.float64]:
        try:
            vectors = _Body.model_validate_json(body).vectors
        except ValidationError as error:
            raise RequestError(_problem(error)) from None
        self._refuse_rows(len(vectors))
        for row, vector in enumerate(vectors):
            if len(vector) != self.predictor.dim:
                raise RequestError(self._wrong_width(f"row {row}", len(vector)))
        return np.array(vectors, dtype=np.float64).reshape(-1, self.predictor.dim)

    def _from_npy(self, body: bytes) -> NDArray[Any]:
        stream = io.BytesIO(body)
        try:
            layout = read_npy_header(stream, "body")
        except DistSpectralError as error:
            raise RequestError(str(error)) from None
        except ValueError as error:
            raise RequestError(f"body: is no .npy array ({error}); send what numpy.save writes") from None
        self._refuse_rows(layout.n_rows)
        if layout.dim != self.predictor.dim:
            raise RequestError(self._wrong_width("every row", layout.dim))
        data, n_bytes = body[stream.tell() :], layout.n_rows * layout.dim * layout.dtype.itemsize
        if len(data) != n_bytes:
            raise RequestError(
                f"body: has {len(data)} bytes behind its header, which promises {n_bytes}; send it whole"
            )
        return np.frombuffer(data, layout.dtype).reshape(layout.n_rows, layout.dim)

    def _refuse_rows(self, n_rows: int) -> None:
        if n_rows > self.max_rows:
            raise RequestTooLargeError(
                f"body: holds {n_rows} rows, {self.max_rows} are answered at once; send fewer, or serve with a larger "
                "--max-batch"
            )
        if n_rows < 1:
            raise RequestError("body: holds no rows; send at least one")

    def _wrong_width(self, where: str, width: int) -> str:
        return f"{where}: has width {width}, the model takes {self.predictor.dim}; send rows of the same kind"


def media_type(content_type: str) -> str:
    """Return which of the two kinds of body a Content-Type names.

    Raises:
        UnsupportedBodyError: neither.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in REPLIES:
        raise UnsupportedBodyError(
            f'Content-Type: is {kind or "missing"}; send {JSON} with {{"vectors": [[...], ...]}}, or {NPY} with what '
            "numpy.save writes"
        )
    return kind


def reply(content_type: str, answer: Answer) -> tuple[bytes, str]:
    """Return the body that answers a request in kind, and its type: JSON for JSON, ``.npz`` for ``.npy``.

    Raises:
        UnfitRowError: an output of a row is NaN or infinite.
    """
    for name, array in answer.items():
        finite = np.isfinite(array).reshape(len(array), -1).all(axis=1)
        if not finite.all():
            raise UnfitRowError(
                f"row {int(np.argmin(finite))}: its {name} is not finite, for its values lie too far from those the "
                "model was trained on; leave it out"
            )
    kind = media_type(content_type)
    if kind == JSON:
        values = {name: array.tolist() for name, array in answer.items()}
        body = json.dumps(values, allow_nan=False).encode()
    else:
        stream = io.BytesIO()
        np.savez(stream, allow_pickle=False, **answer)
        body = stream.getvalue()
    return body, REPLIES[kind]


def _problem(error: ValidationError) -> str:
    """Return what is wrong with a JSON body."""
    first = error.errors()[0]
    place, found = first["loc"], first["input"]
    is_scalar = found is None or isinstance(found, bool | int | float | str)
    shown = json.dumps(found)[:SHOWN_CHARACTERS] if is_scalar else type(found).__name__
    if len(place) == 3:
        return f"row {place[1]}, feature {place[2]}: found {shown}, expected a finite number; repair the row"
    if len(place) == 2:
        return f'row {place[1]}: found {shown}, expected a list of numbers; send {{"vectors": [[...], ...]}}'
    return f'body: {first["msg"]} ({".".join(map(str, place)) or "whole"}); send {{"vectors": [[...], ...]}}'
