"""Files of estimators: whatever could be fitted is saved, whatever was saved is loaded, and nothing of it is lost."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone

from distspectral import DSCL, SpectralNet
from distspectral.errors import ArtifactError, ConfigError, DamagedArtifactError
from distspectral.estimators.base import FORMAT, NetworkEstimator
from distspectral.estimators.stored import restored, stored
from distspectral.models.state import read_state, write_state
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.rows.frame import Frame
from tests.estimators.brief import METRIC, SPECTRAL, X, Y


def again(model: NetworkEstimator, tmp_path: Path) -> NetworkEstimator:
    model.save(tmp_path / "model.pt")
    return type(model).load(tmp_path / "model.pt")


def same(one: Any, other: Any) -> bool:
    if isinstance(one, np.random.RandomState):
        return same(one.get_state(legacy=False), other.get_state(legacy=False))
    if isinstance(one, Frame):
        return same(one.properties(), other.properties())
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return type(one) is type(other) and one == other


CHANGES = [
    {"n_clusters": Y.max() - 1, "n_neighbors": np.int64(7), "batch_size": np.uint16(64), "max_steps": np.int8(2)},
    {"n_clusters": np.str_("auto"), "device": np.str_("cpu"), "verbose": np.bool_(False)},
    {"hidden": np.array([8, 9])},
    {"hidden": [np.int64(8)]},
    {"hidden": 8},
    {"random_state": np.int64(3)},
    {"random_state": None},
    {"random_state": 2**32 - 1},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_parameters_of_any_kind_are_saved(change: dict[str, Any], tmp_path: Path) -> None:
    model = SpectralNet(**SPECTRAL | change).fit(X)
    loaded = again(model, tmp_path)
    for name, value in model.get_params().items():
        assert np.array_equal(loaded.get_params()[name], value) or value is None, name
    np.testing.assert_array_equal(loaded.transform(X), model.embedding_[:, 1:])
    np.testing.assert_array_equal(loaded.predict(X), model.labels_)
    clone(loaded).set_params(random_state=0).fit(X)


def test_a_random_state_goes_on_where_it_stood(tmp_path: Path) -> None:
    model = SpectralNet(**SPECTRAL | {"random_state": np.random.RandomState(5)}).fit(X)
    loaded = again(model, tmp_path)
    assert loaded.random_state.randint(2**31) == model.random_state.randint(2**31)


@pytest.mark.parametrize(
    "classes",
    [
        np.array(["2020-01-01", "2020-02-01", "2021-01-01", "2022-01-01", "2023-05-05"], "datetime64[D]"),
        np.array(["2020-01-01", "2020-02-01", "2021-01-01", "2022-01-01", "2023-05-05"], "datetime64[ns]"),
        np.array([True, False, True, False, True]),
        np.array([0.0, 1.0, 2.0, 3.0, 4.0]),
        np.array([3, 1, 4, 5, 9], np.int8),
        np.array(list("abcde")),
        np.array(list("abcde"), object),
    ],
    ids=lambda classes: str(classes.dtype),
)
def test_classes_of_any_kind_are_saved(classes: np.ndarray, tmp_path: Path) -> None:
    model = DSCL(**METRIC).fit(X, classes[Y])
    loaded = again(model, tmp_path)
    assert same(loaded.classes_, model.classes_)
    np.testing.assert_array_equal(loaded.transform(X), model.transform(X))


@pytest.mark.parametrize("kind", [SpectralNet, DSCL])
def test_every_public_attribute_and_the_names_of_features_are_saved(
    kind: type[NetworkEstimator], tmp_path: Path
) -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(X, columns=["one", "two", "three", "four"])
    model = kind(**SPECTRAL if kind is SpectralNet else METRIC).set_output(transform="pandas").fit(frame, Y)
    loaded = again(model, tmp_path)
    public = {name for name in vars(model) if name.endswith("_") and name != "model_"}
    assert {"feature_names_in_", "n_features_in_", "history_"} < public
    assert all(same(getattr(loaded, name), getattr(model, name)) for name in public)
    pd.testing.assert_frame_equal(loaded.transform(frame), model.transform(frame))
    with pytest.raises(ValueError, match="feature names"):
        loaded.transform(frame[["two", "one", "three", "four"]])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(loaded)).transform(frame), loaded.transform(frame))
    assert repr(loaded) == repr(model)
    assert loaded._repr_html_().count("one") == model._repr_html_().count("one")
    second = again(loaded, tmp_path)
    pd.testing.assert_frame_equal(second.transform(frame), model.transform(frame))


def test_another_estimators_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    SpectralNet(**SPECTRAL).fit(X).save(path)
    with pytest.raises(ArtifactError, match=r"model\.pt: holds a SpectralNet, no DSCL; load it by SpectralNet\.load"):
        DSCL.load(path)


@pytest.mark.parametrize("content", [{"network": {}}, torch.zeros(3), [1, 2]], ids=["dict", "tensor", "list"])
def test_a_file_that_holds_no_estimator_is_told(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(ArtifactError, match=r"model\.pt: holds no estimator; SpectralNet\.load reads what"):
        SpectralNet.load(tmp_path / "model.pt")


def changed(path: Path, **parts: Any) -> None:
    artifact = Artifact(str(path.parent))
    write_state(artifact, path.name, read_state(artifact, path.name) | parts)


def test_a_file_of_another_version_is_told(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    DSCL(**METRIC).fit(X, Y).save(path)
    changed(path, format=99)
    with pytest.raises(
        ArtifactError, match=rf"model\.pt: is of format 99, this version of distspectral reads {FORMAT}"
    ):
        DSCL.load(path)


@pytest.mark.parametrize("parts", [{"params": {"unheard_of": 1}}, {"model": {}}, {"attributes": 3}], ids=str)
def test_a_file_whose_parts_do_not_fit_is_damaged(parts: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    SpectralNet(**SPECTRAL).fit(X).save(path)
    changed(path, **parts)
    with pytest.raises(DamagedArtifactError, match=r"model\.pt: "):
        SpectralNet.load(path)


def test_what_only_a_pickle_could_hold_is_refused_by_name(tmp_path: Path) -> None:
    model = DSCL(**METRIC).fit(X, Y).set_params(trunk_options={"channels": object()})
    with pytest.raises(ConfigError, match=r"^channels: is <object object"):
        model.save(tmp_path / "model.pt")
    generator = np.random.RandomState(np.random.PCG64(0))
    with pytest.raises(ConfigError, match=r"^random_state: is RandomState"):
        SpectralNet(**SPECTRAL | {"random_state": generator}).fit(X).save(tmp_path / "model.pt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, (2.5, None)], "b": {"c": "text"}},
        np.arange(6.0).reshape(2, 3).T,
        np.array([b"ab", b"c"]),
        np.array([], object),
        np.array("2020-01-01", "datetime64[s]"),
        np.array([1, 2], "timedelta64[h]"),
    ],
    ids=lambda value: str(getattr(value, "dtype", "plain")),
)
def test_values_come_back_as_they_went(value: Any) -> None:
    assert same(restored(stored(value, "x")), value)


# ---- the caller's torch ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [SpectralNet, DSCL])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, lambda: torch.device("meta")])
def test_the_callers_modes_change_nothing(kind: type[NetworkEstimator], mode: Any, tmp_path: Path) -> None:
    params = SPECTRAL | {"affinity_space": "siamese", "representation": "code"} if kind is SpectralNet else METRIC
    expected = kind(**params).fit(X, Y).transform(X)
    with mode():
        model = kind(**params).fit(X, Y)
        np.testing.assert_array_equal(model.transform(X), expected)
        loaded = again(model, tmp_path)
        np.testing.assert_array_equal(loaded.transform(X), expected)
    np.testing.assert_array_equal(loaded.transform(X), expected)


def test_the_callers_default_dtype_changes_nothing_and_stays() -> None:
    expected = DSCL(**METRIC).fit(X, Y).transform(X)
    torch.set_default_dtype(torch.float64)
    try:
        found = DSCL(**METRIC).fit(X, Y).transform(X)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)
