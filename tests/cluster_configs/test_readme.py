from __future__ import annotations

import re

import pytest
import typer.main

from distspectral.cli.app import app
from tests.cluster_configs.rules import KUBERNETES, ROOT

SECTION = (ROOT / "README.md").read_text().partition("## On a cluster")[2].partition("## Reading order")[0]
BLOCKS = re.findall(r"```sh\n(.*?)```", SECTION, re.S)
COMMANDS = [line.partition(" #")[0].strip(" &") for block in BLOCKS for line in block.splitlines() if line.strip()]


def test_files_that_the_section_names_are_there() -> None:
    names = set(re.findall(r"(?:cluster_configs|jobs)/[\w./-]+", SECTION)) - {"cluster_configs/kubernetes/components/"}
    assert len(names) >= 8
    missing = [name for name in names if "PLATFORM" not in name and not (ROOT / name.rstrip(".")).exists()]
    assert missing == []
    for platform in ("gke", "eks", "local-kind"):
        assert (KUBERNETES / "components" / platform).is_dir()
        assert (KUBERNETES / "overlays" / platform / "job" / "kustomization.yaml").exists()


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("distspectral ")])
def test_our_commands_take_the_options_that_the_section_gives_them(command: str) -> None:
    _, name, *arguments = command.split()
    known = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    options = {option for parameter in known.params for option in parameter.opts}
    assert {argument for argument in arguments if argument.startswith("--")} <= options


def test_kubernetes_commands_name_what_the_manifests_define() -> None:
    manifests = (KUBERNETES / "job" / "ray-job.pipeline.yaml").read_text()
    manifests += (KUBERNETES / "cluster" / "ray-cluster.gpu.yaml").read_text()
    for command in COMMANDS:
        for name in re.findall(r"(?:rayjob|raycluster|job/|secret) ?(distspectral[\w-]*)", command):
            assert f"name: {name}\n" in manifests or f"name: {name} #" in manifests, command
        if command.startswith("kubectl -n"):
            assert "-n distspectral " in command
