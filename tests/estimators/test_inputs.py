"""Rows come as what people have them in: tensors, columns of lists, tables; all give what the array gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from distspectral import DSCL, SpectralNet
from distspectral.errors import ConfigError
from distspectral.estimators.inputs import as_rows
from tests.estimators.brief import METRIC, SPECTRAL, X, Y

LISTS = X.tolist()


def pandas_(name: str) -> Any:
    pandas = pytest.importorskip("pandas")
    arrow = pandas.ArrowDtype(pa.list_(pa.float64()))
    return {
        "series of lists": lambda: pandas.Series(LISTS),
        "series of arrays": lambda: pandas.Series(list(X)),
        "series of Arrow lists": lambda: pandas.Series(LISTS, dtype=arrow),
        "frame of one column of lists": lambda: pandas.DataFrame({"vector": LISTS}),
        "frame of numbers": lambda: pandas.DataFrame(X),
    }[name]()


def polars_(name: str) -> Any:
    polars = pytest.importorskip("polars")
    return {
        "series of lists": lambda: polars.Series(LISTS),
        "series of arrays": lambda: polars.Series(LISTS, dtype=polars.Array(polars.Float64, 4)),
        "frame of one column of lists": lambda: polars.DataFrame({"vector": LISTS}),
        "frame of one column of arrays": lambda: polars.DataFrame({"vector": polars.Series(X)}),
        "frame of numbers": lambda: polars.DataFrame(X),
    }[name]()


def arrow_(name: str) -> Any:
    column = pa.array(LISTS)
    fixed = column.cast(pa.list_(pa.float64(), 4))
    return {
        "array of lists": lambda: column,
        "chunks of lists of one length": lambda: pa.chunked_array([fixed[:7], fixed[7:]]),
        "table of one column of lists": lambda: pa.table({"vector": fixed}),
        "table of numbers": lambda: pa.table({f"x{i}": X[:, i] for i in range(4)}),
    }[name]()


FORMS: list[Any] = [
    *((pandas_, one) for one in ("series of lists", "series of arrays", "series of Arrow lists", "frame of numbers")),
    (pandas_, "frame of one column of lists"),
    *((polars_, one) for one in ("series of lists", "series of arrays", "frame of numbers")),
    *((polars_, f"frame of one column of {kind}") for kind in ("lists", "arrays")),
    *((arrow_, one) for one in ("array of lists", "chunks of lists of one length", "table of one column of lists")),
    (arrow_, "table of numbers"),
    (torch.tensor, "tensor"),
]


@pytest.mark.parametrize(("make", "form"), FORMS, ids=lambda one: one if isinstance(one, str) else one.__name__)
def test_every_form_holds_the_same_rows(make: Any, form: str) -> None:
    found = as_rows(torch.tensor(X) if form == "tensor" else make(form))
    np.testing.assert_array_equal(np.asarray(found), X)


def test_arrays_and_sparse_matrices_are_handed_on_as_they_are() -> None:
    from scipy import sparse

    for rows in (X, sparse.csr_matrix(X), LISTS):
        assert as_rows(rows) is rows


def test_a_tensor_with_a_gradient_is_fitted_to_and_left_alone() -> None:
    rows = torch.tensor(X, dtype=torch.float32, requires_grad=True)
    found = SpectralNet(**SPECTRAL).fit(rows)
    np.testing.assert_array_equal(found.embedding_, SpectralNet(**SPECTRAL).fit(X.astype("f4")).embedding_)
    assert rows.requires_grad
    assert found.transform(rows).shape == (60, found.embedding_.shape[1] - 1)
    assert as_rows(rows.bfloat16()).dtype == np.float32


def test_columns_of_lists_are_fitted_to() -> None:
    rows = pa.array(LISTS)
    np.testing.assert_array_equal(SpectralNet(**SPECTRAL).fit_predict(rows), SpectralNet(**SPECTRAL).fit_predict(X))
    metric = DSCL(**METRIC).fit(rows, Y)
    np.testing.assert_array_equal(metric.transform(rows), metric.transform(X))


def test_lists_of_several_lengths_or_among_other_columns_are_refused() -> None:
    pandas = pytest.importorskip("pandas")
    with pytest.raises(ConfigError, match="X: row 2 holds 3 numbers, others hold 4; give rows of one length"):
        as_rows(pandas.Series([*LISTS[:2], LISTS[2][:3]]))
    with pytest.raises(ConfigError, match="X: row 1 is None, others hold 4"):
        as_rows(pandas.Series([LISTS[0], None]))
    with pytest.raises(ConfigError, match="X: row 0 is None, others hold 4"):
        as_rows(pandas.Series([None, LISTS[0]]))
    with pytest.raises(ConfigError, match="X: is a sparse tensor"):
        as_rows(torch.eye(3).to_sparse())
    with pytest.raises(ConfigError, match=r"X: column 'vector' holds lists, among other columns; give X\['vector'\]"):
        as_rows(pandas.DataFrame({"id": range(60), "vector": LISTS}))
    twice = pandas.DataFrame(X, columns=["a", "a", "b", "c"])
    assert as_rows(twice) is twice


def test_a_batch_of_an_arrow_table_is_taken_as_a_table() -> None:
    table = pa.table({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    np.testing.assert_array_equal(as_rows(table.to_batches()[0]), as_rows(table))
