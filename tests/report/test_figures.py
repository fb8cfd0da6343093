from __future__ import annotations

import io
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.image import imread

from distspectral.report.data import ReportData, TreeFacts
from distspectral.report.figures import tree_figure, write_figures
from distspectral.storage.artifact.directory import Artifact
from tests.report.conftest import chain

HOSTILE = ["<script>alert(1)</script>", "]]>&$x_{$\x00"]


def written(values: dict[str, Any], folder: Path) -> dict[str, bytes]:
    places = write_figures(Artifact(str(folder / "root")), ReportData.model_validate(values))
    assert all(place.startswith(str(folder / "root/figures")) for place in places)
    found = {path.name: path.read_bytes() for path in (folder / "root/figures").iterdir()}
    assert {Path(place).name for place in places} == found.keys()
    return found


def test_the_pictures_of_a_run_are_files_that_stand_alone(values: Any, tmp_path: Path) -> None:
    data = values()
    data["confusion"]["classes"] = HOSTILE
    data["rows"]["labels"] = data["rows"]["ids"] = HOSTILE[:1] * 200
    found = written(data | {"name": HOSTILE[0]}, tmp_path)
    vectors = {name: content.decode() for name, content in found.items() if name.endswith(".svg")}
    assert set(vectors) == {f"{name}.svg" for name in ("map", "tree", "spectrum", "convergence", "confusion")}
    texts = {name: "".join(ElementTree.fromstring(svg).itertext()) for name, svg in vectors.items()}
    for name, svg in vectors.items():
        assert float(ElementTree.fromstring(svg).attrib["width"].removesuffix("pt")) > 300
        assert "var(" not in svg, "other programs know no variables"
        assert "<script" not in svg
        assert "</text>" in svg, f"{name}: text is no text"
    assert "<script>alert(1" in texts["confusion.svg"]
    assert "eigenvalue" in texts["spectrum.svg"]
    pixels = imread(io.BytesIO(found["map.png"]))
    assert min(pixels.shape[:2]) > 1500
    assert (pixels[:10, :10, :3] == 1).all(), "white paper"


def test_the_tree_names_every_cluster_and_joins_them_by_affinity() -> None:
    svg = ElementTree.fromstring(tree_figure(TreeFacts.model_validate(chain(5)), [10, 20, 30, 40, 50]))
    texts = [text.text for text in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert [text for text in texts if text and "(" in text] == [f"{one}  ({10 * one + 10})" for one in range(5)]


def test_what_a_run_has_not_is_not_drawn(values: Any, tmp_path: Path) -> None:
    data = values(1, confusion=None, tree=None, exemplars=None)
    data["training"]["history"] = []
    data["rows"] = {"x": [], "y": [], "cluster": []}
    assert set(written(data, tmp_path)) == {"spectrum.svg"}
    many = values(130)
    assert "tree.svg" not in written(many, tmp_path / "many")


@pytest.mark.parametrize("place", ["map", "eigenfunctions"])
def test_rows_of_one_place_have_a_map(values: Any, tmp_path: Path, place: str) -> None:
    data = values()
    data["rows"] |= {"x": np.zeros(200).tolist(), "y": np.zeros(200).tolist(), "place": place}
    assert "map.png" in written(data, tmp_path)
