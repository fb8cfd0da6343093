"""As much of kustomize as our kustomizations use; a test compares it with the real one. Any other key is refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonpatch
import yaml

Resource = dict[str, Any]
KEYS = {"apiVersion", "kind", "namespace", "resources", "components", "patches", "images", "configMapGenerator"}
KEYS |= {"generatorOptions"}
CLUSTER_SCOPED = {"Namespace", "PriorityClass", "StorageClass"}


def render(folder: Path) -> list[Resource]:
    """Return what `kubectl kustomize FOLDER` prints."""
    return _apply(folder, [])


def _apply(folder: Path, resources: list[Resource]) -> list[Resource]:
    """Return the resources after one kustomization; a component works on those of who names it."""
    layer = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert set(layer) <= KEYS, f"{folder}: the renderer does not know {set(layer) - KEYS}"
    for name in layer.get("resources", ()):
        path = folder / name
        assert path.exists(), f"{folder}: names {name}, which is not there"
        resources = resources + (_apply(path, []) if path.is_dir() else _read(path))
    for generator in layer.get("configMapGenerator", ()):
        assert layer["generatorOptions"] == {"disableNameSuffixHash": True}
        data = {name: (folder / name).read_text() for name in generator["files"]}
        metadata = {"name": generator["name"]}
        resources.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    for name in layer.get("components", ()):
        resources = _apply(folder / name, resources)
    resources = copy.deepcopy(resources)
    for patch in layer.get("patches", ()):
        resources = _patched(resources, patch)
    for image in layer.get("images", ()):
        for container in [one for resource in resources for one in containers(resource)]:
            if container["image"] == image["name"]:
                container["image"] = f"{image.get('newName', image['name'])}:{image['newTag']}"
    for resource in resources:
        if "namespace" in layer and resource["kind"] not in CLUSTER_SCOPED:
            resource["metadata"]["namespace"] = layer["namespace"]
    return resources


def _read(path: Path) -> list[Resource]:
    """Return the documents of a file, in which nothing that an anchor repeats is one object."""
    documents: list[Resource] = json.loads(json.dumps(list(yaml.safe_load_all(path.read_text()))))
    return documents


def _patched(resources: list[Resource], patch: dict[str, Any]) -> list[Resource]:
    target, change = patch["target"], yaml.safe_load(patch["patch"])
    assert set(target) <= {"kind", "name"}
    done = []
    for resource in resources:
        names = {"kind": resource["kind"], "name": resource["metadata"]["name"]}
        if any(names[key] != value for key, value in target.items()):
            done.append(resource)
        elif isinstance(change, list):
            done.append(jsonpatch.JsonPatch(change).apply(resource))
        else:
            assert change.get("$patch") == "delete", f"only JSON patches and `$patch: delete` are known: {change}"
    return done


def containers(value: Any) -> list[dict[str, Any]]:
    """Return every container at any depth."""
    if isinstance(value, list):
        return [found for item in value for found in containers(item)]
    if not isinstance(value, dict):
        return []
    here = list(value["containers"]) if isinstance(value.get("containers"), list) else []
    return here + [found for item in value.values() for found in containers(item)]
