from __future__ import annotations

from pathlib import Path

import pytest

from distspectral.config import parse_config
from distspectral.stages.plan import Plan, make_plan, spectral_chain
from distspectral.storage.artifact.directory import Artifact

CHAIN = spectral_chain()
PLAIN = "representation: input\naffinity: {space: euclidean}"


def plan_of(*overrides: str, source: str = "rows", variant: str = PLAIN) -> Plan:
    text = f"name: x\ndata: {{path: shards}}\ncluster: {{n_clusters: 3}}\n{variant}"
    config = parse_config(text, "run.yaml", overrides)
    settings = {
        "pack": config.pack,
        "autoencoder": config.autoencoder_settings,
        "graph": config.graph,
        "affinity": config.affinity,
        "siamese": config.siamese_settings,
        "training": config.train_settings,
        "cluster": config.cluster,
        "embed": config.embed,
        "seed": config.seed,
    }
    return make_plan(Artifact("/nowhere"), source, settings, config.chain(100))


def changed_by(*overrides: str, source: str = "rows", variant: str = PLAIN) -> list[str]:
    before, after = plan_of(variant=variant), plan_of(*overrides, source=source, variant=variant)
    return [name for name in before.outputs if before.outputs[name].fingerprint != after.outputs[name].fingerprint]


AFTER_GRAPH = ["train", "calibrate", "cluster", "embed"]


@pytest.mark.parametrize(
    ("override", "stages"),
    [
        ("pack.dtype=float16", list(CHAIN)),
        ("graph.n_neighbors=9", ["neighbors", "graph", *AFTER_GRAPH]),
        ("graph.block_rows=9", ["neighbors", "graph", *AFTER_GRAPH]),
        ("affinity.kind=uniform", ["graph", *AFTER_GRAPH]),
        ("affinity.scope=batch", AFTER_GRAPH),
        ("train.max_steps=9", AFTER_GRAPH),
        ("network.hidden=[9]", AFTER_GRAPH),
        ("spectral.laplacian=unnormalized", AFTER_GRAPH),
        ("seed=1", AFTER_GRAPH),
        ("cluster.n_clusters=9", AFTER_GRAPH),  # it decides how many functions are kept
        ("cluster.restarts=9", ["cluster", "embed"]),
    ],
)
def test_a_value_invalidates_what_it_can_change_and_nothing_before(override: str, stages: list[str]) -> None:
    assert changed_by(override) == stages


@pytest.mark.parametrize(
    "override",
    [
        "name=y",
        "graph.device=cpu",
        "train.device=cpu",
        "train.checkpoint_steps=9",
        "embed.batch_rows=9",
        "ray.workers=5",
        "ray.enabled=false",
    ],
)
def test_a_value_that_changes_no_result_invalidates_nothing(override: str) -> None:
    assert changed_by(override) == []


def test_other_rows_invalidate_everything() -> None:
    assert changed_by(source="other rows") == list(CHAIN)


def test_clusters_alone_change_when_the_number_of_functions_is_fixed() -> None:
    fixed = "spectral.n_components=5"
    before, after = plan_of(fixed), plan_of(fixed, "cluster.n_clusters=4")
    assert before.outputs["calibrate"].fingerprint == after.outputs["calibrate"].fingerprint
    assert before.outputs["cluster"].fingerprint != after.outputs["cluster"].fingerprint


def test_each_stage_has_a_directory_and_its_resolved_config() -> None:
    plan = plan_of()
    assert [Path(plan.artifact(name).path).name for name in CHAIN] == [
        "vectors",
        "neighbors",
        "graph",
        "training",
        "model",
        "clusters",
        "output",
    ]
    assert plan.outputs["pack"].config == {"dtype": "float32"}
    assert plan.outputs["cluster"].config["n_clusters"] == 3
    assert plan.outputs["cluster"].config["seed"] == 0
    assert plan.outputs["train"].config["train"]["max_steps"] > 0


def test_other_rows_are_embedded_under_the_same_model_and_another_fingerprint() -> None:
    plan = plan_of()
    other = plan.of_other_rows("embed", {"source": "other rows"}, Artifact("/elsewhere"))
    planned = plan.outputs["embed"]
    assert other.fingerprint != planned.fingerprint
    assert other.inputs == {**planned.inputs, "source": "other rows"}
    same = plan.of_other_rows("embed", {"source": "rows"}, Artifact("/elsewhere"))
    assert same.fingerprint == planned.fingerprint


def metric_plan(*overrides: str) -> Plan:
    text = "name: x\nobjective: dscl\ndata: {path: shards, label_column: label}"
    config = parse_config(text, "run.yaml", overrides)
    settings = {
        "pack": config.pack,
        "training": config.train_settings,
        "evaluate": config.evaluate,
        "seed": config.seed,
    }
    return make_plan(Artifact("/nowhere"), "rows", settings, config.chain(100))


@pytest.mark.parametrize(
    ("override", "stages"),
    [
        ("train.max_steps=9", ["train", "encode", "evaluate"]),
        ("network.hidden=[9]", ["train", "encode", "evaluate"]),
        ("dscl.whiten=true", ["encode", "evaluate"]),
        ("evaluate.spectral_step=true", ["evaluate"]),
        ("graph.n_neighbors=9", []),
        ("spectral.laplacian=unnormalized", []),
        ("train.device=cpu", []),
    ],
)
def test_a_metric_depends_on_its_own_sections_only(override: str, stages: list[str]) -> None:
    before, after = metric_plan(), metric_plan(override)
    assert list(before.outputs) == ["pack", "train", "encode", "evaluate"]
    assert before.last.stage == "evaluate"
    changed = [name for name in before.outputs if before.outputs[name].fingerprint != after.outputs[name].fingerprint]
    assert changed == stages


def test_both_objectives_share_the_packed_vectors() -> None:
    assert metric_plan().outputs["pack"].fingerprint == plan_of().outputs["pack"].fingerprint
    assert metric_plan().outputs["train"].fingerprint != plan_of().outputs["train"].fingerprint


LEARNED = "representation: code"
AFTER_SIAMESE = ["siamese", "features", "reweight", *AFTER_GRAPH]


@pytest.mark.parametrize(
    ("override", "stages"),
    [
        ("autoencoder.n_components=9", ["autoencoder", "codes", "neighbors", "graph", *AFTER_SIAMESE]),
        ("siamese.margin=2", AFTER_SIAMESE),
        ("siamese.batch_size=9", AFTER_SIAMESE),
        ("affinity.kind=uniform", ["graph", *AFTER_SIAMESE]),
        ("train.max_steps=9", AFTER_GRAPH),
        ("autoencoder.device=cpu", []),
        ("siamese.checkpoint_steps=9", []),
    ],
)
def test_learned_spaces_depend_on_their_own_sections(override: str, stages: list[str]) -> None:
    assert changed_by(override, variant=LEARNED) == stages


def test_variants_share_what_they_have_in_common() -> None:
    plain, coded, rebuilt = (
        plan_of(variant=variant) for variant in (PLAIN, LEARNED, f"{LEARNED}\nsiamese: {{use: rebuild}}")
    )
    common = [name for name in coded.outputs if name in rebuilt.outputs]
    same = [name for name in common if coded.outputs[name].fingerprint == rebuilt.outputs[name].fingerprint]
    assert same == ["pack", "autoencoder", "codes", "neighbors", "graph", "siamese", "features"]
    assert plain.outputs["pack"].fingerprint == coded.outputs["pack"].fingerprint
    assert plain.outputs["neighbors"].fingerprint != coded.outputs["neighbors"].fingerprint
    assert (plain.graph, coded.graph, rebuilt.graph) == ("graph", "reweight", "siamese_graph")
    assert len({output.artifact.path for output in coded.outputs.values()}) == len(coded.outputs)
