from __future__ import annotations

import itertools
import math
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from distspectral.cli.demo import digits_values
from distspectral.config import RunConfig, load_config, parse_config
from distspectral.config.load import config_of, validate_values
from distspectral.errors import ConfigError, MissingArtifactError, UnknownKeyError
from distspectral.objectives.spectral import default_n_components
from distspectral.storage.artifact.directory import Artifact

MINIMAL = "name: tiny\ndata:\n  path: shards\n"
CONFIGS = Path(__file__).parents[2] / "jobs" / "configs"


def test_a_name_and_a_path_are_enough() -> None:
    config = parse_config(MINIMAL, "run.yaml")
    assert (config.root, config.seed, config.data.path) == ("runs/tiny", 0, "shards")


def test_a_file_is_read_and_a_missing_one_named(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(MINIMAL)
    assert load_config(path).name == "tiny"
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read"):
        load_config(tmp_path / "absent.yaml")


def test_the_config_of_a_root_is_the_one_that_stands_there(tmp_path: Path) -> None:
    root = Artifact(str(tmp_path))
    with pytest.raises(MissingArtifactError, match=r"has no file config\.yaml"):
        config_of(root)
    (tmp_path / "config.yaml").write_text(MINIMAL)
    assert (config_of(root).name, config_of(root, ["seed=3"]).seed) == ("tiny", 3)
    with pytest.raises(ConfigError, match=f"^{tmp_path}/config.yaml: seed: "):
        config_of(root, ["seed=x"])


def test_a_key_that_is_looked_for_in_vain_is_refused_with_the_reason() -> None:
    with pytest.raises(UnknownKeyError, match=r"unknown key `data\.weight_column`; all rows weigh the same"):
        parse_config(MINIMAL, "run.yaml", ["data.weight_column=w"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train:\n  max_step: 5\n", r"run\.yaml: unknown key `train\.max_step`; did you mean `train\.max_steps`\?"),
        ("trian:\n  max_steps: 5\n", r"unknown key `trian`; did you mean `train`\?"),
        ("train:\n  n_clusters: 5\n", r"unknown key `train\.n_clusters`; there is `cluster\.n_clusters`"),
        ("ray:\n  actors: {mim: 1}\n", r"unknown key `ray\.actors\.mim`; did you mean `ray\.actors\.min`\?"),
        (
            "ray:\n  scale_neighbour: 1\n",
            r"unknown key `ray\.scale_neighbour`; did you mean `affinity\.scale_neighbor`\?",
        ),
        ("pack:\n  zzzzzz: 1\n", r"unknown key `pack\.zzzzzz`; pack has dtype"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_real_one(text: str, message: str) -> None:
    with pytest.raises(UnknownKeyError, match=message):
        parse_config(MINIMAL + text, "run.yaml")


def test_a_key_that_is_part_of_an_unknown_one_is_nearer_than_one_that_is_spelled_alike() -> None:
    with pytest.raises(UnknownKeyError, match=r"unknown key `data\.vector_column`; did you mean `data\.column`\?"):
        parse_config(MINIMAL, "run.yaml", ["data.vector_column=x"])


def test_all_refused_values_are_listed_with_what_was_found() -> None:
    text = "data: {}\ntrain: {max_steps: -3, learning_rate: fast}\ncluster: {n_clusters: some}\n"
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "run.yaml")
    message = str(caught.value)
    assert type(caught.value) is ConfigError
    assert message == (
        "run.yaml: 5 problems\n"
        "  name: is missing\n"
        "  data.path: is missing\n"
        "  train.max_steps: expected more than 0 or 'auto' (got -3)\n"
        "  train.learning_rate: expected a number (got 'fast')\n"
        "  cluster.n_clusters: expected a whole number or 'auto' (got 'some')"
    )


def test_broken_yaml_is_refused_with_its_line() -> None:
    with pytest.raises(ConfigError, match=r"run\.yaml: line 3, column \d+: not valid YAML"):
        parse_config("name: x\ndata:\n  path: [unclosed\ntrain: {}\n".replace("[unclosed", "a: b: c"), "run.yaml")
    with pytest.raises(ConfigError, match=r"line 3, column 1: not valid YAML: key 'name' occurs twice"):
        parse_config("name: x\nseed: 1\nname: y\n", "run.yaml")
    with pytest.raises(ConfigError, match="holds a list"):
        parse_config("- name\n", "run.yaml")
    with pytest.raises(ConfigError, match="name: is missing"):
        parse_config("", "run.yaml")


def test_overrides_replace_values_read_as_yaml() -> None:
    overrides = ["train.max_steps=7", "network.hidden=[8, 4]", "cluster.n_clusters=auto", "train.learning_rate=1e-2"]
    config = parse_config(MINIMAL, "run.yaml", [*overrides, "data.id_column=null", "data.path=a=b"])
    assert config.train.max_steps == 7
    assert config.network.hidden == (8, 4)
    assert config.cluster.n_clusters == "auto"
    assert config.train.learning_rate == 0.01
    assert config.data.path == "a=b"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.max_steps", "expected section.key=value"),
        ("=5", "expected section.key=value"),
        ("train..x=5", "expected section.key=value"),
        ("name.x=5", "`name` is a value, not a section"),
        ("train.max_steps=[", "not valid YAML"),
    ],
)
def test_a_malformed_override_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(MINIMAL, "run.yaml", [override])


def test_an_override_with_an_unknown_key_is_refused() -> None:
    with pytest.raises(UnknownKeyError, match=r"did you mean `train\.max_steps`"):
        parse_config(MINIMAL, "run.yaml", ["train.maxsteps=5"])


def test_a_dumped_config_is_read_back_the_same() -> None:
    config = parse_config(MINIMAL + "network: {hidden: [8]}\n", "run.yaml")
    assert validate_values(config.model_dump(mode="json"), "dump") == config


def test_the_schema_describes_every_section() -> None:
    schema = RunConfig.model_json_schema()
    assert schema["additionalProperties"] is False
    assert set(RunConfig.model_fields) == set(schema["properties"])


def test_the_shipped_configs_are_valid_and_digits_is_the_demo() -> None:
    for path in CONFIGS.glob("*.yaml"):
        load_config(path)
    assert load_config(CONFIGS / "digits.yaml") == validate_values(digits_values("runs/demo"), "demo")


def test_more_functions_are_kept_than_clusters_are_sought_unless_the_config_says_how_many() -> None:
    for n_clusters in (1, 10, 40):
        recipe = parse_config(MINIMAL, "x", [f"cluster.n_clusters={n_clusters}"]).recipe(100)
        assert recipe.n_components == default_n_components(n_clusters) > n_clusters
        assert recipe.trainings["train"].n_components == recipe.n_components
    assert parse_config(MINIMAL, "x", ["spectral.n_components=3"]).recipe(100).n_components == 3


# ---- in the config's words -----------------------------------------------------------------------------------------

PYDANTICS = (
    "input should",
    "valid",
    "function-",
    "union",
    "tag",
    "constrained",
    "literal",
    "instance",
    "parse",
    "dict",
)
WRONG: tuple[Any, ...] = ("?", -1, 0.5, [], [-1], {}, {"x": 1}, True, 10**400, math.inf, math.nan, [["?"]], "\0")


def keys(model: type[BaseModel], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        yield (*prefix, name)
        for kind in (field.annotation, *typing.get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel) and name != "resources":
                yield from keys(kind, (*prefix, name))


@pytest.mark.parametrize("key", [*keys(RunConfig), ("ray", "resources", "embed", "num_cpus")], ids=".".join)
def test_no_refusal_speaks_of_pydantic(key: tuple[str, ...]) -> None:
    for wrong in WRONG:
        values: dict[str, Any] = {"name": "x", "data": {"path": "shards"}}
        section = values
        for part in key[:-1]:
            section = section.setdefault(part, {})
        section[key[-1]] = wrong
        try:
            validate_values(values, "run.yaml")
        except ConfigError as error:
            message = str(error)
            assert ".".join(key) in message or "max: is missing" in message, message
            assert "another value" not in message
            said = message.partition("(got ")[0].lower()
            assert not [word for word in PYDANTICS if word in said], message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("ray.workers=x", r"ray\.workers: expected a whole number, keys and values or 'auto' \(got 'x'\)"),
        ("ray.workers={max: 0}", r"ray\.workers\.max: expected more than 0 \(got 0\)$"),
        ("ray.resources.embed.num_gpus=-1", r"ray\.resources\.embed\.num_gpus: expected at least 0 \(got -1\)"),
        ("ray.resources.embedd.num_gpus=1", r"ray\.resources: embedd is no stage"),
        ("data.path=[1, 2]", r"data\.path\.0: expected text \(got 1\)"),
        ("data.path=''", r"data\.path: expected at least 1 characters or a list \(got ''\)"),
        ("storage.cache_bytes=1Zonk", r"storage\.cache_bytes: expected bytes, or text such as 1GiB \(got '1Zonk'\)"),
        ("train.learning_rate=.inf", r"train\.learning_rate: expected a finite number"),
        ("name='a b'", r"name: expected text that matches"),
        ("seed=4294967296", r"seed: expected at most 2147483646"),
        ("seed=-1", r"seed: expected at least 0"),
        ("graph.seed=2147483647", r"graph\.seed: expected at most 2147483646"),
        ("network=3", r"network: expected keys and values \(got 3\)"),
    ],
)
def test_what_is_expected_is_said_in_the_configs_words(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(MINIMAL, "run.yaml", [override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 3000 + "]" * 3000, "nested too deeply"),
        ("{a: " * 3000 + "1" + "}" * 3000, "nested too deeply"),
        (
            "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
            + "".join(f"{c}: &{c} [{', '.join([f'*{b}'] * 10)}]\n" for b, c in itertools.pairwise("abcdefghij")),
            "aliases make more than 1,000,000 values",
        ),
        ("a: &a [*a]\n", "aliases make more than"),
        ("name: 2020-99-99\n", "not valid YAML: month must be"),
        (f"seed: {'9' * 5000}\n", "not valid YAML: Exceeds the limit"),
        ("name: x\x00y\n", "not valid YAML"),
        ("? [a]\n: b\n", "not valid YAML"),
        ("!!python/object/apply:os.system ['true']\n", "not valid YAML"),
        ("1: 2\n", r"1: expected keys that are text"),
        ("name: on\ndata: {path: x}\n", r"name: expected text \(got True\)"),
    ],
    ids=["lists", "mappings", "bomb", "loop", "date", "digits", "control", "key", "code", "number", "on"],
)
def test_hostile_yaml_is_refused_at_once(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(text, "run.yaml")


def test_honest_aliases_are_read() -> None:
    config = parse_config(
        "name: x\ndata: {path: x}\nnetwork: {hidden: &h [8, 4]}\nautoencoder: {hidden: *h}\n", "run.yaml"
    )
    assert config.network.hidden == config.autoencoder.hidden == (8, 4)


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("root=a #b", "root", "a #b"),
        ("root=#b", "root", "#b"),
        ('root="a #b"', "root", "a #b"),
        ("root='a: b'", "root", "a: b"),
        ("name=on", "name", "on"),
        ("name=123", "name", "123"),
        ("name=1e3", "name", "1e3"),
        ("name=2020-01-01", "name", "2020-01-01"),
        ("data.path=007", "data.path", "007"),
        ("data.path=*.npy", "data.path", "*.npy"),
        ("data.column=*", "data.column", "*"),
        ("data.column=*x", "data.column", "*x"),
        ("data.path=@a/%b", "data.path", "@a/%b"),
        ("data.path=[a, b #c]", None, "in quotes"),
        ("data.path='*.npy", None, "in quotes"),
        ("train.max_steps=*", None, "in quotes"),
        ("data.path=[a, b] #c", None, "begins a comment"),
        ("data.id_column=null", "data.id_column", None),
        ("data.id_column=no", "data.id_column", "no"),
        ("mlflow.experiment=1.5", "mlflow.experiment", "1.5"),
        ("seed=5 # five", None, "begins a comment"),
        ("start_from=~", "start_from", None),
    ],
)
def test_what_was_typed_is_kept(override: str, key: str | None, value: str | None) -> None:
    if key is None:
        with pytest.raises(ConfigError, match=str(value)):
            parse_config(MINIMAL, "run.yaml", [override])
        return
    found = parse_config(MINIMAL, "run.yaml", [override])
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value
