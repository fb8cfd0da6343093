"""What the pages on clusters say: files that are there, names that the manifests define."""

from __future__ import annotations

import re

from tests.cluster_configs.rules import KUBERNETES, ROOT
from tests.docs.pages import blocks

PAGES = [ROOT / "docs/how-to" / name for name in ("jobs.md", "kubernetes.md", "ray-up.md", "watching.md")]
TEXT = "".join(page.read_text("utf-8") for page in PAGES)
COMMANDS = [
    " ".join(words) for page in PAGES for block in blocks(page) if block.language == "sh" for words in block.commands()
]


def test_files_that_the_pages_name_are_there() -> None:
    names = set(re.findall(r"(?:cluster_configs|jobs)/[\w./-]+\w", TEXT))
    assert len(names) >= 6
    assert [name for name in names if not (ROOT / name).exists()] == []
    for platform in ("gke", "eks", "aks", "openshift", "local-kind"):
        assert f"`{platform}`" in TEXT
        assert (KUBERNETES / "components" / platform).is_dir()
        assert (KUBERNETES / "overlays" / platform / "job" / "kustomization.yaml").exists()


def test_options_that_the_page_names_are_components() -> None:
    page = (ROOT / "docs/how-to/kubernetes.md").read_text("utf-8")
    components = re.findall(r"^\| `([\w-]+)` \|", page, re.M)
    assert len(components) == 5
    assert [name for name in components if not (KUBERNETES / "components" / name).is_dir()] == []


def test_kubernetes_commands_name_what_the_manifests_define() -> None:
    manifests = (KUBERNETES / "job" / "ray-job.pipeline.yaml").read_text()
    manifests += (KUBERNETES / "cluster" / "ray-cluster.gpu.yaml").read_text()
    named = [
        (name, command)
        for command in COMMANDS
        for name in re.findall(r"(?:rayjob|raycluster|job/|secret) ?(distspectral[\w-]*)", command)
    ]
    assert len(named) >= 4
    for name, command in named:
        assert f"name: {name}\n" in manifests or f"name: {name} #" in manifests, command
    assert [one for one in COMMANDS if one.startswith("kubectl -n") and "-n distspectral " not in one] == []
