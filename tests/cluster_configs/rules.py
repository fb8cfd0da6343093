"""Whether Kubernetes, KubeRay and Ray would take a resource: schemas closed as the API server closes them, and the
rules that no schema states."""

from __future__ import annotations

import copy
import functools
import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate.utils
import pytest

# it parses its definitions, a megabyte, for every object
kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "cluster_configs"
KUBERNETES = CONFIGS / "kubernetes"
KUBERNETES_VERSION = "1.32"
SCHEMAS = Path(os.environ.get("DISTSPECTRAL_SCHEMAS", ROOT.parent / "shared" / "schemas"))
LONGEST_RAY_JOB_NAME = 47
CUSTOM_KINDS = {"RayCluster", "RayJob"}
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
POD_MONITOR: dict[str, Any] = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "monitoring.coreos.com/v1"},
        "kind": {"const": "PodMonitor"},
        "metadata": {
            "type": "object",
            "required": ["name"],
            "properties": {"name": {"type": "string"}, "namespace": {"type": "string"}, "labels": TEXTS},
        },
        "spec": {
            "type": "object",
            "required": ["selector", "podMetricsEndpoints"],
            "properties": {
                "selector": {"type": "object", "properties": {"matchLabels": TEXTS}},
                "podTargetLabels": {"type": "array", "items": {"type": "string"}},
                "podMetricsEndpoints": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "required": ["port"],
                        "properties": {
                            "port": {"type": "string"},
                            "interval": {"type": "string", "pattern": r"^\d+(ms|s|m)$"},
                        },
                    },
                },
            },
        },
    },
}
"""As much of the Prometheus operator's schema as we use; whatever else is said is refused."""


@functools.cache
def ray_validator(kind: str) -> jsonschema.Draft202012Validator:
    """Return a validator by KubeRay's schema of a kind, refusing unknown fields; skip where the schemas are absent."""
    file = SCHEMAS / f"ray.io_v1_{kind.lower()}.schema.json"
    if not file.exists():
        pytest.skip(f"no {file}; set DISTSPECTRAL_SCHEMAS to the folder with KubeRay's schemas")
    return jsonschema.Draft202012Validator(closed(json.loads(file.read_text())))


def closed(schema: Any) -> Any:
    """Return a structural schema in which objects that list properties take no others."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    done = {key: closed(value) for key, value in schema.items()}
    is_object = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
    if is_object and not schema.get("x-kubernetes-preserve-unknown-fields"):
        done["additionalProperties"] = False
    if schema.get("x-kubernetes-int-or-string"):
        done.pop("type", None)
    return done


def check(resource: dict[str, Any]) -> None:
    """Raise if the resource would be refused, or would not do what it says."""
    resource = copy.deepcopy(resource)
    kind, name = resource["kind"], resource["metadata"]["name"]
    if kind == "PodMonitor":
        jsonschema.Draft202012Validator(closed(POD_MONITOR)).validate(resource)
        return
    if kind not in CUSTOM_KINDS:
        kubernetes_validate.validate(resource, KUBERNETES_VERSION, strict=True)
        return
    as_config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": resource["metadata"]}
    kubernetes_validate.validate(as_config_map, KUBERNETES_VERSION, strict=True)
    ray_validator(kind).validate(resource)
    spec = resource["spec"]
    if kind == "RayJob":
        assert len(name) <= LONGEST_RAY_JOB_NAME, f"{name}: longer than {LONGEST_RAY_JOB_NAME}"
        assert spec["shutdownAfterJobFinishes"], "the cluster would go on costing"
        check_pod(spec["submitterPodTemplate"])
        spec = spec["rayClusterSpec"]
    check_cluster(spec)


def check_cluster(spec: dict[str, Any]) -> None:
    """Raise if a cluster's spec breaks a rule that KubeRay's schema does not state."""
    groups = spec["workerGroupSpecs"]
    names = [group["groupName"] for group in groups]
    assert len(set(names)) == len(names), f"groups named twice: {names}"
    for group in groups:
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"], group["groupName"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0", "work would run on the head"
    for group in (spec["headGroupSpec"], *groups):
        check_pod(group["template"])
        template = group["template"]["spec"]
        if spec["enableInTreeAutoscaling"]:
            assert template["restartPolicy"] == "Never", "autoscaler v2 takes a restarted pod for the old node"
        container = template["containers"][0]
        assert container["resources"]["requests"]["memory"] == container["resources"]["limits"]["memory"]
        assert "readinessProbe" in container
        assert "livenessProbe" in container
        volumes = {volume["name"] for volume in template["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


def check_pod(template: dict[str, Any]) -> None:
    """Raise if a pod template is none."""
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"} | template.get("metadata", {})}
    kubernetes_validate.validate(pod | {"spec": template["spec"]}, KUBERNETES_VERSION, strict=True)
