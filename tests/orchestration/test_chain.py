from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from distspectral.config import parse_config
from distspectral.orchestration.chain import Chain
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Manifest
from tests.runs import AFTER_GRAPH, FOLDERS

SPECTRAL = ("pack", "trial", "neighbors", "graph", *AFTER_GRAPH)
PLAIN = "representation: input\naffinity: {space: euclidean}"


def chain_of(*overrides: str, source: str = "rows", text: str, starts: Mapping[str, str] | None = None) -> Chain:
    config = parse_config(text, "run.yaml", overrides)
    recipe = config.recipe(100)
    sections = {name: getattr(config, name) for name in type(config).model_fields}
    return Chain.of(recipe, Artifact("/nowhere"), source, sections | recipe.trainings, starts or {})


def spectral(*overrides: str, source: str = "rows", variant: str = PLAIN) -> Chain:
    text = f"name: x\ndata: {{path: shards}}\ncluster: {{n_clusters: 3}}\n{variant}"
    return chain_of(*overrides, source=source, text=text)


def changed_by(*overrides: str, source: str = "rows", variant: str = PLAIN) -> tuple[str, ...]:
    return differing(spectral(variant=variant), spectral(*overrides, source=source, variant=variant))


def differing(one: Chain, other: Chain) -> tuple[str, ...]:
    return tuple(name for name, output in one.outputs.items() if output.fingerprint != other.outputs[name].fingerprint)


def test_weights_to_begin_with_are_known_by_what_they_are_and_not_by_where_they_lie() -> None:
    text = f"name: x\ndata: {{path: shards}}\ncluster: {{n_clusters: 3}}\n{PLAIN}"

    def prints(place: str, weights: str) -> list[str]:
        chain = chain_of(f"start_from={place}", text=text, starts={"trial": "t", "train": weights, "map": "m"})
        return [output.fingerprint for output in chain.outputs.values()]

    assert prints("a", "of seed 0") == prints("b", "of seed 0")
    differ = [one != other for one, other in zip(prints("a", "of seed 0"), prints("a", "of seed 1"), strict=True)]
    assert dict(zip(SPECTRAL, differ, strict=True)) == {name: name in AFTER_GRAPH for name in SPECTRAL}


@pytest.mark.parametrize(
    ("override", "stages"),
    [
        ("pack.dtype=float16", SPECTRAL),
        ("graph.n_neighbors=9", ("trial", "neighbors", "graph", *AFTER_GRAPH)),
        ("graph.block_rows=9", ("neighbors", "graph", *AFTER_GRAPH)),
        ("affinity.kind=uniform", ("graph", *AFTER_GRAPH)),
        ("orthonorm.decay=0.5", AFTER_GRAPH),
        ("train.max_steps=9", AFTER_GRAPH),
        ("network.hidden=[9]", AFTER_GRAPH),
        ("spectral.laplacian=unnormalized", AFTER_GRAPH),
        ("seed=1", AFTER_GRAPH),
        ("cluster.n_clusters=9", AFTER_GRAPH),  # it decides how many functions are kept
        ("cluster.restarts=9", ("cluster", "tree", "embed", "exemplars")),
        ("distill.max_steps=9", AFTER_GRAPH[2:]),
        ("map.n_negatives=9", ("map", "embed", "exemplars")),
    ],
)
def test_a_value_invalidates_what_it_can_change_and_nothing_before(override: str, stages: tuple[str, ...]) -> None:
    assert changed_by(override) == stages


@pytest.mark.parametrize(
    "override",
    [
        "name=y",
        "graph.device=cpu",
        "train.device=cpu",
        "train.checkpoint_steps=9",
        "map.checkpoint_steps=9",
        "distill.checkpoint_steps=9",
        "embed.batch_rows=9",
        "ray.workers=5",
        "ray.enabled=false",
    ],
)
def test_a_value_that_changes_no_result_invalidates_nothing(override: str) -> None:
    assert changed_by(override) == ()


@pytest.mark.parametrize("variant", ["", "distill: {enabled: false}"])
def test_a_config_written_out_is_the_same_one(variant: str) -> None:
    chain = spectral(variant=f"{PLAIN}\n{variant}")
    text = f"name: x\ndata: {{path: shards}}\ncluster: {{n_clusters: 3}}\n{PLAIN}\n{variant}"
    written = yaml.safe_dump(parse_config(text, "test").model_dump(mode="json"))
    again = chain_of(text=written)
    prints = ([output.fingerprint for output in one.outputs.values()] for one in (chain, again))
    assert next(prints) == next(prints)


def test_other_rows_invalidate_everything() -> None:
    assert changed_by(source="other rows") == SPECTRAL


def test_clusters_alone_change_when_the_number_of_functions_is_fixed() -> None:
    fixed = "spectral.n_components=5"
    before, after = spectral(fixed), spectral(fixed, "cluster.n_clusters=4")
    assert before.outputs["calibrate"].fingerprint == after.outputs["calibrate"].fingerprint
    assert before.outputs["cluster"].fingerprint != after.outputs["cluster"].fingerprint


def test_each_stage_has_a_directory_and_its_resolved_config() -> None:
    chain = spectral()
    assert {name: Path(chain.artifact(name).path).name for name in SPECTRAL} == FOLDERS | {"trial": "trial"}
    assert chain.outputs["pack"].config == {"dtype": "float32"}
    assert chain.outputs["cluster"].config["n_clusters"] == 3
    assert chain.outputs["cluster"].config["seed"] == 0
    assert chain.outputs["train"].config["train"]["max_steps"] == "auto"


def test_other_rows_are_embedded_under_the_same_model_and_another_fingerprint() -> None:
    chain = spectral()
    other = chain.of_other_rows("embed", {"source": "other rows"}, Artifact("/elsewhere"))
    own = chain.outputs["embed"]
    assert other.fingerprint != own.fingerprint
    assert other.inputs == {**own.inputs, "source": "other rows"}
    same = chain.of_other_rows("embed", {"source": "rows"}, Artifact("/elsewhere"))
    assert same.fingerprint == own.fingerprint


def metric(*overrides: str) -> Chain:
    return chain_of(*overrides, text="name: x\nobjective: dscl\ndata: {path: shards, label_column: label}")


@pytest.mark.parametrize(
    ("override", "stages"),
    [
        ("train.max_steps=9", ("train", "embed", "evaluate")),
        ("network.hidden=[9]", ("train", "embed", "evaluate")),
        ("dscl.whiten=true", ("embed", "evaluate")),
        ("evaluate.spectral_step=true", ("evaluate",)),
        ("graph.n_neighbors=9", ()),
        ("spectral.laplacian=unnormalized", ()),
        ("train.device=cpu", ()),
    ],
)
def test_a_metric_depends_on_its_own_sections_only(override: str, stages: tuple[str, ...]) -> None:
    before, after = metric(), metric(override)
    assert list(before.outputs) == ["pack", "train", "embed", "evaluate"]
    assert before.last.stage == "evaluate"
    assert differing(before, after) == stages


def test_both_objectives_share_the_packed_vectors() -> None:
    assert metric().outputs["pack"].fingerprint == spectral().outputs["pack"].fingerprint
    assert metric().outputs["train"].fingerprint != spectral().outputs["train"].fingerprint


LEARNED = "representation: code"
AFTER_SIAMESE = ("siamese", "features", "reweight", *AFTER_GRAPH)


@pytest.mark.parametrize(
    ("override", "stages"),
    [
        ("autoencoder.n_components=9", ("autoencoder", "codes", "neighbors", "graph", *AFTER_SIAMESE)),
        ("siamese.margin=2", AFTER_SIAMESE),
        ("siamese.batch_size=9", AFTER_SIAMESE),
        ("affinity.kind=uniform", ("graph", *AFTER_SIAMESE)),
        ("train.max_steps=9", AFTER_GRAPH),
        ("autoencoder.device=cpu", ()),
        ("siamese.checkpoint_steps=9", ()),
    ],
)
def test_learned_spaces_depend_on_their_own_sections(override: str, stages: tuple[str, ...]) -> None:
    assert changed_by(override, variant=LEARNED) == stages


def test_variants_share_what_they_have_in_common() -> None:
    plain, coded, rebuilt = (
        spectral(variant=variant) for variant in (PLAIN, LEARNED, f"{LEARNED}\nsiamese: {{use: rebuild}}")
    )
    common = [name for name in coded.outputs if name in rebuilt.outputs]
    same = [name for name in common if coded.outputs[name].fingerprint == rebuilt.outputs[name].fingerprint]
    assert same == ["pack", "autoencoder", "codes", "neighbors", "graph", "siamese", "features"]
    assert plain.outputs["pack"].fingerprint == coded.outputs["pack"].fingerprint
    assert plain.outputs["neighbors"].fingerprint != coded.outputs["neighbors"].fingerprint
    assert [list(one.outputs)[-10] for one in (plain, coded, rebuilt)] == ["graph", "reweight", "siamese_graph"]
    assert len({output.artifact.path for output in coded.outputs.values()}) == len(coded.outputs)


@pytest.mark.parametrize(
    ("override", "stage", "told"),
    [
        ("pack.dtype=float16", "pack", "pack.dtype is float16, was float32"),
        ("graph.n_neighbors=9", "neighbors", "graph.n_neighbors is 9, was 15"),
        ("orthonorm.decay=0.5", "train", "orthonorm.decay is 0.5, was 0.99"),
        ("network.hidden=[9]", "train", "network.hidden is [9], was [512, 256]"),
        ("train.max_steps=9", "train", "train.max_steps is 9, was auto"),
        ("seed=1", "train", "seed is 1, was 0"),
        ("cluster.restarts=9", "cluster", "cluster.restarts is 9, was "),
    ],
)
def test_a_setting_that_tells_two_results_apart_is_told_with_its_key(override: str, stage: str, told: str) -> None:
    before, after = spectral().outputs[stage], spectral(override).outputs[stage]
    found = Manifest(stage=stage, fingerprint=before.fingerprint, config=before.config, inputs=before.inputs)
    (difference,) = after.differences(found)
    assert difference.startswith(told)
    assert before.differences(found) == []


def test_a_setting_of_an_encoder_is_told_with_its_section() -> None:
    before, after = (
        spectral(*one, variant="representation: code").outputs for one in ([], ["autoencoder.max_steps=9"])
    )
    found = Manifest(stage="autoencoder", fingerprint="", config=before["autoencoder"].config)
    assert after["autoencoder"].differences(found) == ["autoencoder.max_steps is 9, was auto"]
