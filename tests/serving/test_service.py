from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch

from distspectral.bench.random_model import RandomModel
from distspectral.bench.serve import request_body
from distspectral.errors import RequestError, RequestTooLargeError, UnfitRowError, UnsupportedBodyError
from distspectral.serving.predictor import OUTPUTS, Metric, Predictor
from distspectral.serving.service import JSON, NPY, NPZ, Service, reply
from distspectral.storage.rows.frame import Frame
from tests.datasets import npy_claiming

DIM = 3
MAX_ROWS = 8
ROWS = np.random.default_rng(0).standard_normal((5, DIM)).astype(np.float32)


@pytest.fixture(scope="module")
def service() -> Service:
    return Service(RandomModel(DIM, (8,), n_components=4, n_clusters=3)(), MAX_ROWS, "cpu")


def expected(service: Service, rows: np.ndarray) -> list[np.ndarray]:
    with torch.inference_mode():
        return [output.numpy() for output in service.module(torch.from_numpy(rows))]


@pytest.mark.parametrize("kind", [JSON, NPY, "Application/JSON; charset=utf-8"])
def test_either_body_gives_the_rows_that_were_sent(service: Service, kind: str) -> None:
    body = request_body(ROWS, NPY if kind == NPY else JSON)
    np.testing.assert_array_equal(service.rows(kind, body), ROWS)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "uint8", ">f4"])
def test_npy_rows_of_every_type_are_read(service: Service, dtype: str) -> None:
    array = np.arange(2 * DIM).reshape(2, DIM).astype(dtype)
    stream = io.BytesIO()
    np.save(stream, array)
    found = service.rows(NPY, stream.getvalue())
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, array)


def test_rows_are_scaled_as_the_training_datas_were() -> None:
    predictor = RandomModel(DIM, (8,))()
    half = Service(type(predictor)(**vars(predictor) | {"frame": Frame(0.5)}), MAX_ROWS, "cpu")
    np.testing.assert_array_equal(half.rows(JSON, request_body(ROWS, JSON)), ROWS * np.float32(0.5))


def test_requests_answered_together_get_each_their_own_rows(service: Service) -> None:
    one, two = service.answers([ROWS[:2], ROWS[2:]])
    for part, rows in ((one, ROWS[:2]), (two, ROWS[2:])):
        assert list(part) == list(OUTPUTS)
        for found, output in zip(part.values(), expected(service, rows), strict=True):
            np.testing.assert_allclose(found, output, rtol=1e-5, atol=1e-6)


def test_a_reply_is_of_the_requests_kind(service: Service) -> None:
    (answer,) = service.answers([ROWS])
    body, kind = reply(JSON, answer)
    assert kind == JSON
    decoded = json.loads(body)
    assert decoded["cluster"] == answer["cluster"].tolist()
    np.testing.assert_array_equal(np.array(decoded["embedding"], np.float32), answer["embedding"])
    body, kind = reply(NPY, answer)
    assert kind == NPZ
    with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
        for name, array in answer.items():
            np.testing.assert_array_equal(arrays[name], array)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("{", "body: Invalid JSON"),
        ("[[1, 2, 3]]", "body: .*object"),
        ('{"vectors": [[1, 2, 3]], "ids": [1]}', r"body: .*\(ids\)"),
        ('{"vectors": [[1, 2, 3], [1, "2", 3]]}', 'row 1, feature 1: found "2", expected a finite number'),
        ('{"vectors": [[1, 2, true]]}', "row 0, feature 2: found true"),
        ('{"vectors": [[1, 2, null]]}', "row 0, feature 2: found null"),
        ('{"vectors": [[1, 2, [3]]]}', "row 0, feature 2: found list"),
        ('{"vectors": [[1, NaN, 3]]}', "row 0, feature 1: found NaN"),
        ('{"vectors": [[1, 2, 3], [1, 1e39, 3]]}', "row 1, feature 1: 1e[+]39 is beyond float32"),
        ('{"vectors": [[1, 2, 3], 7]}', "row 1: found 7, expected a list of numbers"),
        ('{"vectors": [[1, 2, 3], [1, 2]]}', "row 1: has width 2, the model takes 3"),
        ('{"vectors": []}', "holds no rows"),
    ],
)
def test_a_json_body_that_cannot_be_used_is_refused_with_its_place(service: Service, body: str, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        service.rows(JSON, body.encode())
    assert caught.value.status == 400


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


HUGE = npy(ROWS).replace(b"(5, 3)", b"(7, 3)")  # a header of the same length that promises more


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"PK", "no .npy array"),
        (npy(ROWS)[:60], "no .npy array"),
        (HUGE, "60 bytes behind its header, which promises 84"),
        (npy(ROWS)[:-4], "56 bytes behind its header"),
        (npy(ROWS[0]), r"float32 of shape \(3,\)"),
        (npy(ROWS > 1), "holds bool"),
        (npy(np.array([["a", "b", "c"]], dtype=object)), "holds object"),
        (npy(np.asfortranarray(ROWS)), "column by column"),
        (npy(ROWS[:, :2]), "every row: has width 2, the model takes 3"),
        (npy(ROWS[:0]), "holds no rows"),
        (npy_claiming("(True, 3)", ROWS[:1]), r"no .npy array .*shape \(True, 3\)"),
        (npy_claiming("(-5, 3)", ROWS), r"no .npy array .*shape \(-5, 3\)"),
        (npy_claiming("(5.0, 3)", ROWS), "no .npy array"),
        (npy_claiming("(5, 3)", ROWS, "[('x', '<f4')]"), "holds .*'x'"),
        (npy(np.where(np.arange(15).reshape(5, 3) == 7, np.nan, ROWS)), "row 2, feature 1: found nan"),
    ],
)
def test_an_npy_body_that_cannot_be_used_is_refused_with_its_place(service: Service, body: bytes, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        service.rows(NPY, body)
    assert caught.value.status == 400


@pytest.mark.parametrize("kind", [JSON, NPY])
def test_too_many_rows_are_refused_as_too_large(service: Service, kind: str) -> None:
    with pytest.raises(RequestTooLargeError, match="holds 9 rows, 8 are answered at once") as caught:
        service.rows(kind, request_body(np.zeros((MAX_ROWS + 1, DIM), np.float32), kind))
    assert caught.value.status == 413


def test_as_many_rows_as_are_answered_fit_whatever_their_digits(service: Service) -> None:
    many = Service(service.predictor, 1000, "cpu")
    longest = np.full((1000, DIM), -1.2345678901234567e-100)
    assert many.rows(JSON, request_body(longest, JSON)).shape == (1000, DIM)


def test_a_body_too_long_for_its_rows_is_refused_before_it_is_parsed(service: Service) -> None:
    with pytest.raises(RequestTooLargeError, match="send fewer rows"):
        service.rows(JSON, b"[" * (service.max_bytes + 1))


@pytest.mark.parametrize("kind", ["", "text/csv", "application/x-www-form-urlencoded"])
def test_other_kinds_of_body_are_refused_with_those_there_are(service: Service, kind: str) -> None:
    with pytest.raises(UnsupportedBodyError, match=r"application/json .* application/x-npy") as caught:
        service.rows(kind, b"{}")
    assert caught.value.status == 415


@pytest.mark.parametrize("kind", [JSON, NPY])
def test_a_row_whose_outputs_are_not_finite_is_named(kind: str) -> None:
    network = torch.nn.Linear(DIM, 2)
    torch.nn.init.constant_(network.weight, 1.0)
    service = Service(Predictor(Metric(network, None), ("embedding",), DIM, Frame(), {}, {}), MAX_ROWS, "cpu")
    rows = ROWS.copy()
    rows[3] = 3e38  # whose sum is beyond float32
    answer = service.answers([service.rows(kind, request_body(rows, kind))])[0]
    with pytest.raises(UnfitRowError, match=r"row 3: its embedding is not finite.*leave it out"):
        reply(kind, answer)
    assert reply(kind, service.answers([np.delete(rows, 3, axis=0)])[0])


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "1e39", '"NaN"', "null", "true"])
def test_json_that_is_no_finite_number_is_refused_with_its_place(service: Service, number: str) -> None:
    with pytest.raises(RequestError, match="row 1, feature 2: "):
        service.rows(JSON, f'{{"vectors": [[1, 2, 3], [1, 2, {number}]]}}'.encode())


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_npy_that_is_no_finite_number_is_refused_with_its_place(service: Service, value: float) -> None:
    stream = io.BytesIO()
    np.save(stream, np.array([[1, 2, 3], [1, 2, value]]))
    with pytest.raises(RequestError, match="row 1, feature 2: "):
        service.rows(NPY, stream.getvalue())


@pytest.mark.parametrize("shape", ["(True, 3)", "(1, True)", "(-1, 3)", "(1.0, 3)", "('1', 3)"])
def test_a_header_of_odd_shape_is_refused(service: Service, shape: str) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    body = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + b"\0" * 12
    with pytest.raises(RequestError, match="body: "):
        service.rows(NPY, body)
