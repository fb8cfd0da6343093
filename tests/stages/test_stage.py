"""The declarations of all stages: they fit one another, the recipes and the config."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from typing import Any

import pytest

from distspectral.config import RunConfig, parse_config
from distspectral.recipes import RECIPES, Recipe
from distspectral.stages import FOLDERS, NAMES, STAGES, stage_named, stages_of
from distspectral.stages.stage import TRAINING_ONLY, Stage, Work
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.output import SOURCE

DECLARED = [
    pytest.param(stage, id=f"{kind}-{stage.name}") for kind, stages in STAGES.items() for stage in stages.values()
]
VARIANTS = [
    ("representation=input", "affinity.space=euclidean"),
    ("representation=code", "affinity.space=euclidean"),
    ("representation=pca", "affinity.space=euclidean"),
    *itertools.product(
        ("representation=input", "representation=code", "representation=pca", "representation=auto"),
        ("siamese.use=reweight", "siamese.use=rebuild"),
    ),
]
GRAPH_OF_ROWS, METRIC = ("affinity.space=euclidean",), ("objective=dscl", "data.label_column=label")
RUNS = [pytest.param(("objective=spectral", *variant), id=" ".join(variant)) for variant in VARIANTS]
RUNS.append(pytest.param(METRIC, id="dscl"))


def run(overrides: tuple[str, ...]) -> tuple[RunConfig, Recipe]:
    config = parse_config("name: x\ndata: {path: shards}", "run.yaml", overrides)
    return config, config.recipe(100)


def value_at(settings: dict[str, Any], key: str) -> Any:
    """Return what stands under a dotted key; a KeyError or an AttributeError says that there is none."""
    name, *inner = key.split(".")
    value = settings[name]
    for part in inner:
        value = getattr(value, part)
    return value


def test_every_kind_of_run_has_its_stages() -> None:
    assert set(STAGES) == set(RECIPES)
    for stages in STAGES.values():
        assert [stage.name for stage in stages.values()] == list(stages)
        assert len({stage.folder for stage in stages.values()}) == len(stages), "no two write to the same place"
    assert set(NAMES) == {name for stages in STAGES.values() for name in stages}
    assert set(FOLDERS) == {stage.folder for stages in STAGES.values() for stage in stages.values()}


def test_a_name_is_of_one_stage_or_of_stages_that_ask_for_the_same_workers() -> None:
    assert [stage_named(name).name for name in NAMES] == list(NAMES)
    for stages in STAGES.values():
        assert all(stage.workers == stage_named(name).workers for name, stage in stages.items())


@pytest.mark.parametrize("stage", DECLARED)
def test_a_declaration_says_what_the_stage_does(stage: Stage) -> None:
    assert re.fullmatch(r"[A-Z][^.]+\.", stage.purpose), "one sentence"
    assert re.fullmatch(r"[a-z][a-z ]+", stage.done), "as in 'packed in 3 s'"
    assert re.fullmatch(r"[a-z_]+", stage.name)
    assert re.fullmatch(r"[a-z-]+", stage.folder)


@pytest.mark.parametrize("overrides", RUNS)
def test_the_inputs_of_a_stage_come_before_it(overrides: tuple[str, ...]) -> None:
    _, recipe = run(overrides)
    chain = stages_of(recipe)
    assert [stage.name for stage in chain] == list(recipe.chain)
    assert max(Counter(recipe.chain).values()) == 1
    done = {SOURCE}
    for stage in chain:
        assert set(stage.inputs(recipe)) <= done, stage.name
        done.add(stage.name)
    read = {name for stage in chain for name in stage.inputs(recipe)}
    assert done - read == {chain[-1].name}, "every other stage is read by one"


@pytest.mark.parametrize("overrides", RUNS)
def test_sections_and_harmless_keys_exist(overrides: tuple[str, ...]) -> None:
    config, recipe = run(overrides)
    settings = {name: getattr(config, name) for name in RunConfig.model_fields} | dict(recipe.trainings)
    for stage in stages_of(recipe):
        for key in stage.sections:
            value_at(settings, key)
        for key in stage.harmless:
            assert any(key.startswith(f"{section}.") for section in stage.sections), f"{stage.name}: {key}"
            if not (key == "train.dscl.whiten" and recipe.kind == "spectral"):  # the one stage of both kinds
                value_at(settings, key)


@pytest.mark.parametrize("overrides", RUNS)
def test_a_stage_trains_if_and_only_if_the_recipe_has_settings_for_it(overrides: tuple[str, ...]) -> None:
    _, recipe = run(overrides)
    training = [stage for stage in stages_of(recipe) if stage.trains]
    assert [stage.name for stage in training] == list(recipe.trainings)
    for stage in training:
        assert stage.sections == (stage.name,)
        assert {f"{stage.name}.train.{key}" for key in TRAINING_ONLY} <= set(stage.harmless)


@pytest.mark.parametrize("overrides", RUNS)
def test_other_rows_pass_stages_of_the_chain_the_last_of_which_embeds(overrides: tuple[str, ...]) -> None:
    _, recipe = run(overrides)
    assert set(recipe.passage) <= set(recipe.chain)
    assert recipe.passage[-1] == "embed"


def test_work_of_a_run_without_a_graph_has_none_and_no_other_recipe() -> None:
    artifacts = {"graph": Artifact("graph")}
    spectral, metric = (Work(run(one)[1], {}, artifacts, *[None] * 4) for one in (GRAPH_OF_ROWS, METRIC))  # type: ignore[arg-type]
    assert spectral.graph is artifacts["graph"]
    assert spectral.spectral is spectral.recipe
    for part in ("graph", "spectral"):
        with pytest.raises(AssertionError, match="objective dscl"):
            getattr(metric, part)
