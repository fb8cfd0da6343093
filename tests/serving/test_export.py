from __future__ import annotations

import copy
import dataclasses
import importlib.util
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from torch import Tensor, nn
from typer.testing import CliRunner

from distspectral.cli.app import EXIT_REFUSED, app
from distspectral.config import load_config
from distspectral.errors import (
    ExportError,
    FingerprintMismatchError,
    MissingDependencyError,
    OutputNotWritableError,
    RequestError,
)
from distspectral.models.framed import Framed
from distspectral.orchestration.engine import LocalEngine
from distspectral.orchestration.observer import SilentObserver
from distspectral.orchestration.pipeline import run
from distspectral.serving import export as stage
from distspectral.serving import loaders
from distspectral.serving.predictor import OUTPUTS, Predictor, load_predictor
from distspectral.serving.service import JSON, NPY, Service
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.rows.vectors import MappedVectors
from tests.runs import DIM, N_ROWS, moved, write_metric_run, write_run

SCALE = 0.25
BLOCKED = ("distspectral", "ray", "pyarrow", "sklearn", "faiss")
LOADERS = {"embed_torch": ("onnxruntime", loaders.TORCH), "embed_onnx": ("torch", loaders.ONNX)}
"""By module: the other runtime, which it must not need; and what it is."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on scaled rows, and its export."""
    folder = tmp_path_factory.mktemp("run")
    data = {"path": str(folder / "data"), "id_column": "id", "label_column": "label", "scale": SCALE}
    run(load_config(write_run(folder, data=data)), LocalEngine(), SilentObserver())
    result = CliRunner().invoke(app, ["export", str(folder / "root"), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["stage"] == "export"
    return folder / "root"


@pytest.fixture(scope="module")
def predictor(root: Path) -> Predictor:
    return load_predictor(Artifact(str(root)))


@pytest.fixture(scope="module")
def source_rows(root: Path) -> np.ndarray:
    """The rows as the user's column holds them, in order."""
    parts = [pq.read_table(path) for path in sorted((root.parent / "data").glob("*.parquet"))]
    return np.concatenate([np.stack(part["vector"].to_numpy()) for part in parts]).astype(np.float32)


@pytest.mark.parametrize("module", list(LOADERS))
def test_a_loader_alone_gives_what_the_run_wrote_for_the_users_rows(
    root: Path, source_rows: np.ndarray, module: str, tmp_path: Path
) -> None:
    other, text = LOADERS[module]
    assert len(text.splitlines()) <= 15
    np.save(tmp_path / "rows.npy", source_rows)
    code = f"""
import sys
for name in {(*BLOCKED, other)!r}:
    sys.modules[name] = None  # importing it fails
sys.path.insert(0, {str(root / "export")!r})
import numpy
from {module} import embed
rows = numpy.load("rows.npy")
numpy.savez("out.npz", **{{name: numpy.asarray(value) for name, value in embed(rows).items()}})
assert numpy.asarray(embed(rows[:1])["embedding"]).shape[0] == 1
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    found = np.load(tmp_path / "out.npz")
    parts = [pq.read_table(path) for path in sorted((root / "output").glob("part-*.parquet"))]
    digits = {"embedding": 1e-5, "cluster": 0, "distance": 2e-3, "leaf": 0, "is_outlier": 0, "x": 1e-4, "y": 1e-4}
    for name, tolerance in digits.items():  # roots near zero lose digits
        written = np.concatenate([np.stack(part[name].to_numpy()) for part in parts])
        assert len(written) == N_ROWS
        np.testing.assert_allclose(found[name], written, rtol=tolerance, atol=tolerance)


def test_the_documentation_prints_the_loaders_as_they_are() -> None:
    page = (Path(__file__).parents[2] / "docs/how-to/export.md").read_text()
    for _, text in LOADERS.values():
        assert f"```python\n{text}```" in page


def test_the_card_says_what_goes_in_and_comes_out(root: Path) -> None:
    card = json.loads((root / "export/model_card.json").read_text())
    (taken,) = card["inputs"]
    assert taken["shape"] == ["rows", DIM]
    assert taken["dtype"] == "float32"
    assert "multiplies them by 0.25" in taken["meaning"]
    assert [one["name"] for one in card["outputs"]] == [*OUTPUTS, "x", "y"]
    assert len(card["eigenvalues"]) == card["outputs"][0]["shape"][1] == 4
    assert card["training_data"]["rows"] == N_ROWS
    assert set(card["metrics"]["agreement"]) == {"acc", "nmi", "ari"}
    assert all(worst <= 1e-5 for worst in card["check"]["largest_differences"]["onnx"].values())
    page = (root / "export/MODEL_CARD.md").read_text()
    assert "| input | vectors | rows x 5 | float32 |" in page
    assert f"Trained on {N_ROWS} rows" in page


@pytest.mark.parametrize("file", ["model.pt2", "model.onnx"])
def test_a_program_tells_nothing_of_this_machine(root: Path, file: str) -> None:
    content = (root / "export" / file).read_bytes()
    for source in (stage.__file__, torch.__file__):
        assert str(Path(source).parent).encode() not in content


def raw_outputs(predictor: Predictor, rows: np.ndarray) -> list[np.ndarray]:
    with torch.inference_mode():
        return [output.numpy() for output in Framed(predictor.frame, predictor.module)(torch.from_numpy(rows))]


@pytest.mark.parametrize(
    ("output", "change"),
    [
        ("embedding", lambda array: array + np.float32(1e-4)),
        ("embedding", lambda array: array * np.float32(np.nan)),
        ("cluster", lambda array: (array + 1) % 3),
        ("distance", lambda array: array + np.float32(0.1)),
        ("distance", lambda array: array * np.float32(np.nan)),
        ("leaf", lambda array: (array + 1) % (array.max() + 1)),
        ("is_outlier", lambda array: ~array),
        ("y", lambda array: array + np.float32(1)),
    ],
)
def test_a_program_that_disagrees_is_refused(predictor: Predictor, output: str, change) -> None:
    rows = stage.sample_rows(predictor)

    def program(part: np.ndarray) -> list[np.ndarray]:
        outputs = dict(zip(predictor.outputs, raw_outputs(predictor, part), strict=True))
        return list((outputs | {output: change(outputs[output])}).values())

    raw = Framed(predictor.frame, predictor.module)
    with pytest.raises(ExportError, match=r"model.onnx: \w+ differs from the network's"):
        stage.checked("model.onnx", program, predictor, raw, rows)
    honest = stage.checked("model.onnx", lambda part: raw_outputs(predictor, part), predictor, raw, rows)
    assert honest == dict.fromkeys((*OUTPUTS, "x", "y"), 0)


def test_rows_between_two_centroids_may_go_to_either(predictor: Predictor) -> None:
    twins = load_predictor(Artifact(predictor.vectors.path.removesuffix("/vectors")))
    centroids = twins.module.assigner.centroids
    centroids[1] = centroids[0]
    rows = stage.sample_rows(twins)

    def program(part: np.ndarray) -> list[np.ndarray]:
        embedding, cluster, *others = raw_outputs(twins, part)
        return [embedding, np.where(cluster == 0, 1, cluster), *others]

    assert 0 in raw_outputs(twins, rows)[1]
    assert stage.checked("x", program, twins, Framed(twins.frame, twins.module), rows)["cluster"] == 0


def test_distances_are_compared_where_they_have_digits(predictor: Predictor) -> None:
    def program(part: np.ndarray) -> list[np.ndarray]:
        embedding, cluster, distance, *others = raw_outputs(predictor, part)
        return [embedding, cluster, np.sqrt(distance**2 + np.float32(5e-6)), *others]

    rows = stage.sample_rows(predictor)
    assert np.abs(program(rows)[2] - raw_outputs(predictor, rows)[2]).max() > 2 * stage.TOLERANCE
    found = stage.checked("x", program, predictor, Framed(predictor.frame, predictor.module), rows)
    assert found["distance"] == pytest.approx(5e-6, rel=0.1)


class TwoFaced(nn.Module):
    """A network that says something else when it is traced."""

    def __init__(self, perceptron: nn.Module) -> None:
        super().__init__()
        self.perceptron, self.input_mean = perceptron, perceptron.input_mean

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.perceptron(x)
        return outputs + 1e-3 if torch.compiler.is_exporting() else outputs


def test_a_refused_program_leaves_the_export_before_it_as_it_was(
    root: Path, predictor: Predictor, tmp_path: Path
) -> None:
    shutil.copytree(root / "export", tmp_path / "export")
    before = {path.name: path.read_bytes() for path in (tmp_path / "export").iterdir()}
    embedder = copy.deepcopy(predictor.module)
    embedder.network.perceptron = TwoFaced(embedder.network.perceptron)
    two_faced = dataclasses.replace(predictor, module=embedder.eval())
    for folder in ("export", "other"):
        with pytest.raises(ExportError, match="nothing was written"):
            stage.export(two_faced, Artifact(str(tmp_path / folder)), ["torch"])
    assert {path.name: path.read_bytes() for path in (tmp_path / "export").iterdir()} == before
    assert not (tmp_path / "other").exists()


def test_no_other_artifact_is_overwritten(root: Path, predictor: Predictor) -> None:
    with pytest.raises(OutputNotWritableError, match="holds what the stage calibrate wrote"):
        stage.export(predictor, Artifact(str(root / "model")), ["torch"])
    assert (root / "model/model.pt").exists()


def test_what_onnx_needs_is_named(predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name))
    with pytest.raises(MissingDependencyError, match=r"onnxscript .*'\.\[export\]"):
        stage.export(predictor, Artifact(str(tmp_path / "out")))


def test_an_unknown_format_is_refused(root: Path) -> None:
    result = CliRunner().invoke(app, ["export", str(root), "--format", "tflite"])
    assert result.exit_code == EXIT_REFUSED
    assert "--format: is tflite; choose from torch, onnx" in result.stderr


def test_a_network_that_cannot_be_traced_is_refused() -> None:
    class Moody(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(ExportError, match=r"network.trunk has to be traceable"), stage.quiet():
        stage.exported_program(Moody(), 3)


@pytest.fixture
def own(root: Path, tmp_path: Path) -> Path:
    """The run to spoil, as far as it is read."""
    shutil.copy(root / "config.yaml", tmp_path)
    for name in ("vectors", "model", "clusters", "tree", "map"):
        shutil.copytree(root / name, tmp_path / name)
    return tmp_path


def edit_manifest(artifact: Path, change) -> None:
    path = artifact / ".manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("stale", "reader"), [("model", "clusters"), ("vectors", "model"), ("clusters", "tree"), ("model", "map")]
)
def test_artifacts_that_do_not_belong_together_are_refused(own: Path, stale: str, reader: str) -> None:
    edit_manifest(own / stale, lambda manifest: manifest.update(fingerprint="0" * 16))
    if reader == "map":
        edit_manifest(own / "clusters", lambda manifest: manifest["inputs"].update(calibrate="0" * 16))
    with pytest.raises(FingerprintMismatchError, match=f"{reader}: was made from another .*{stale}"):
        load_predictor(Artifact(str(own)))


def test_a_run_that_draws_no_map_is_exported_without_one(own: Path) -> None:
    shutil.rmtree(own / "map")
    config = yaml.safe_load((own / "config.yaml").read_text())
    config["map"]["enabled"] = False
    (own / "config.yaml").write_text(yaml.safe_dump(config))
    found = load_predictor(Artifact(str(own)))
    assert found.outputs == OUTPUTS
    assert len(found.module(torch.zeros(2, DIM))) == len(OUTPUTS)


@pytest.mark.parametrize("whiten", [False, True])
def test_a_learned_metric_is_exported_as_its_embedding_alone(tmp_path: Path, whiten: bool) -> None:
    dscl = {"n_components": 6, "rows_per_class": 5, "whiten": whiten}
    run(load_config(write_metric_run(tmp_path, dscl=dscl)), LocalEngine(), SilentObserver())
    root = Artifact(str(tmp_path / "root"))
    predictor = load_predictor(root)
    assert predictor.outputs == ("embedding",)
    rows = MappedVectors(root.child("vectors")).block(0, 300)
    written = MappedVectors(root.child("embedding")).block(0, 300)
    np.testing.assert_allclose(raw_outputs(predictor, rows)[0], written, rtol=1e-5, atol=1e-5)
    if whiten:
        manifest = stage.export(predictor, root.child("export"), ["onnx"])
        assert manifest.metrics["largest_differences"]["onnx"]["embedding"] <= 1e-5
        card = root.child("export").read_json("model_card.json")
        assert set(card["metrics"]["retrieval"]) == {"recall_at", "nmi", "map_at_r"}
        assert re.search("recall_at @1 0[.]", (tmp_path / "root/export/MODEL_CARD.md").read_text())


@pytest.mark.parametrize("written", [write_run, write_metric_run])
def test_a_run_on_seconds_since_1970_is_served_and_exported_as_it_embeds(written, tmp_path: Path) -> None:
    config = load_config(written(tmp_path))
    raw = moved(tmp_path / "data", 1.7e9)
    run(config, LocalEngine(), SilentObserver())
    root = tmp_path / "root"
    result = CliRunner().invoke(app, ["export", str(root), "--json"])
    assert result.exit_code == 0, result.output
    folder, column = ("output", "embedding") if written is write_run else ("embedding", "vector")
    parts = [read_columns(path, column) for path in sorted((root / folder).glob("part-*"))]
    embedded = np.concatenate(parts)
    assert np.ptp(embedded, axis=0).max() > 0.1
    stream = io.BytesIO()
    np.save(stream, raw)
    service = Service(load_predictor(Artifact(str(root))), len(raw), "cpu")
    for kind, body in ((NPY, stream.getvalue()), (JSON, json.dumps({"vectors": raw.tolist()}).encode())):
        (answer,) = service.answers([service.rows(kind, body)])
        np.testing.assert_allclose(answer["embedding"], embedded, atol=1e-4)
    far = raw.copy()
    far[3, 1] = 1e30
    with pytest.raises(RequestError, match=r"row 3, feature 1: 1e[+]30 is beyond float32 beside the other rows"):
        service.rows(JSON, json.dumps({"vectors": far.tolist()}).encode())
    np.save(tmp_path / "rows.npy", raw)
    for module in LOADERS:
        code = f"""
import sys
sys.path.insert(0, {str(root / "export")!r})
import numpy
from {module} import embed
numpy.save("out.npy", numpy.asarray(embed(numpy.load("rows.npy"))["embedding"]))
"""
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
        np.testing.assert_allclose(np.load(tmp_path / "out.npy"), embedded, atol=1e-4)
    (taken,) = json.loads((root / "export/model_card.json").read_text())["inputs"]
    assert taken["dtype"] == "float64"


def read_columns(path: Path, column: str) -> np.ndarray:
    table = pq.read_table(path) if path.suffix == ".parquet" else Artifact(str(path.parent)).read_table(path.name)
    return np.stack(table[column].to_numpy())


class Coarse(nn.Module):
    """A network whose embedding of two rows is a little off that of many."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> list[Tensor]:
        embedding, *others = self.module(x)
        return [embedding + 3e-5 * (len(x) == 2), *others]


def test_a_program_may_differ_by_a_few_times_what_the_network_rounds_by(predictor: Predictor) -> None:
    raw, rows = Coarse(Framed(predictor.frame, predictor.module)), stage.sample_rows(predictor)
    scale = np.abs(raw_outputs(predictor, rows)[0]).clip(min=1)

    def off_by(share: float) -> dict[str, float]:
        def program(part: np.ndarray) -> list[np.ndarray]:
            embedding, *others = raw_outputs(predictor, part)
            return [embedding + np.float32(share) * scale[: len(part)], *others]

        return stage.checked("model.onnx", program, predictor, raw, rows)

    assert off_by(8e-5)["embedding"] == pytest.approx(8e-5, rel=0.1)
    with pytest.raises(ExportError, match=r"embedding differs .* is allowed; nothing was written\. The other --format"):
        off_by(2e-4)
