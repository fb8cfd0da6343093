"""SpectralNet on annotated cells, called and answering as scanpy's own tools do.

Shape letters: N cells, D features, P eigenfunctions, C clusters.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from distspectral.errors import ConfigError, MissingDependencyError
from distspectral.estimators.spectral_net import SpectralNet
from distspectral.estimators.stored import plain

PCA = "X_pca"
"""Where scanpy keeps principal components."""


def spectral(
    adata: Any,
    n_clusters: Any = "auto",
    *,
    use_rep: str | None = None,
    key_added: str = "distspectral",
    random_state: Any = 0,
    copy: bool = False,
    **parameters: Any,
) -> Any:
    """Embed and cluster the cells of an AnnData.

    It writes ``obsm["X_distspectral"]`` (N, P - 1) float32, the eigenfunctions but for the constant one;
    ``obs["distspectral"]``, categorical, the clusters; and ``uns["distspectral"]``, a dict with ``params``,
    ``eigenvalues`` (P,) and ``certificate``, in words.

    Args:
        adata: N cells.
        n_clusters: C, or ``auto``.
        use_rep: what neighbours are searched in: a key of ``obsm``, or ``X``; None: ``X_pca`` if it is there, else
            ``X``.
        key_added: other than ``distspectral`` in the three names.
        random_state: see :class:`distspectral.SpectralNet`; so are the parameters not named here.
        copy: return a copy with the results, and leave ``adata`` alone.
        **parameters: of :class:`distspectral.SpectralNet`.

    Returns:
        The copy, or None.

    Raises:
        ConfigError: ``adata`` is no AnnData, or lacks ``use_rep``.
        MissingDependencyError: pandas, which AnnData brings, is not installed.
    """
    if not (hasattr(adata, "obsm") and hasattr(adata, "obs")):
        raise ConfigError(f"adata: expected an AnnData (got a {type(adata).__name__}); use distspectral.SpectralNet")
    try:
        import pandas
    except ImportError as error:
        raise MissingDependencyError("pandas is not installed: pip install '.[anndata]'") from error
    use_rep = use_rep or (PCA if PCA in adata.obsm else "X")
    if use_rep != "X" and use_rep not in adata.obsm:
        there = ", ".join(["X", *adata.obsm])
        raise ConfigError(f"use_rep: adata.obsm has no {use_rep!r}; there are {there}")
    adata = adata.copy() if copy else adata
    rows = adata.X if use_rep == "X" else adata.obsm[use_rep]
    model = SpectralNet(n_clusters, random_state=random_state, **parameters)
    adata.obsm[f"X_{key_added}"] = model.fit_transform(rows)
    names = np.array([str(cluster) for cluster in range(model.n_clusters_)], dtype=object)
    adata.obs[key_added] = pandas.Categorical.from_codes(model.labels_, pandas.Index(names, dtype=object))
    adata.uns[key_added] = {
        "params": {"use_rep": use_rep} | {name: _written(value) for name, value in _given(model).items()},
        "eigenvalues": model.eigenvalues_,
        "certificate": model.certificate_["words"],
    }
    return adata if copy else None


def _given(model: SpectralNet) -> dict[str, Any]:
    """Return the parameters that a file of cells can hold: all but those that are None, or a generator."""
    kept = {name: plain(value) for name, value in model.get_params(deep=False).items()}
    return {name: value for name, value in kept.items() if isinstance(value, bool | int | float | str | tuple)}


def _written(value: Any) -> bool | int | float | str | NDArray[Any]:
    return np.array(value) if isinstance(value, tuple) else value
