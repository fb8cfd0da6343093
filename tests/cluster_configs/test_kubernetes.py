from __future__ import annotations

import copy
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from distspectral.config import load_config
from tests.cluster_configs.kustomize import containers, render
from tests.cluster_configs.rules import CONFIGS, KUBERNETES, ROOT, check, check_cluster

OVERLAYS = sorted(KUBERNETES.glob("overlays/*/*"))
FOLDERS = [KUBERNETES / "cluster", KUBERNETES / "job", *OVERLAYS]
OPTIONS = ("object-storage", "kueue", "gcs-fault-tolerance")
names = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(KUBERNETES)))


@pytest.fixture
def with_options(tmp_path: Path) -> Path:
    """A copy in which every overlay takes every component that its comments offer."""
    shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    for file in tmp_path.glob("kubernetes/overlays/*/*/kustomization.yaml"):
        file.write_text(file.read_text().replace("  # - ../../../components", "  - ../../../components"))
    return tmp_path / "kubernetes"


def ray_resource(folder: Path) -> dict[str, Any]:
    (found,) = [one for one in render(folder) if one["kind"] in ("RayCluster", "RayJob")]
    return found


def by_name(resources: Iterable[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(one["kind"], one["metadata"]["name"]): one for one in resources}


def cluster_spec(resource: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = resource["spec"]
    return spec["rayClusterSpec"] if resource["kind"] == "RayJob" else spec


@names
def test_every_resource_is_valid(folder: Path) -> None:
    resources = render(folder)
    assert len(resources) >= 7
    for resource in resources:
        check(resource)


@names
def test_our_renderer_agrees_with_kustomize(folder: Path) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl to compare with")
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=True)
    assert by_name(yaml.safe_load_all(done.stdout)) == by_name(render(folder))


def test_the_offered_options_are_valid_too(with_options: Path) -> None:
    for folder in sorted(with_options.glob("overlays/*/*")):
        resources = render(folder)
        for resource in resources:
            check(resource)
        if "local-kind" in folder.parts:
            continue
        assert "PersistentVolumeClaim" not in {one["kind"] for one in resources}, "components/object-storage"
        assert "persistentVolumeClaim" not in str(resources), "no pod waits for the claim that is gone"
        ray = ray_resource(folder)
        assert ray["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "distspectral"
        if folder.name == "cluster":
            assert "secretKeyRef" in ray["spec"]["gcsFaultToleranceOptions"]["redisPassword"]["valueFrom"]


def test_prometheus_finds_the_port_of_every_pod_and_the_way_is_open(with_options: Path) -> None:
    for what in ("job", "cluster"):
        resources = render(with_options / "overlays/gke" / what)
        (monitor,) = [one for one in resources if one["kind"] == "PodMonitor"]
        chosen = monitor["spec"]["selector"]["matchLabels"].items()
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        (policy,) = [one for one in resources if one["kind"] == "NetworkPolicy"]
        (rule,) = [one for one in policy["spec"]["ingress"] if "prometheus" in str(one["from"])]
        spec = cluster_spec(ray_resource(with_options / "overlays/gke" / what))
        assert monitor["metadata"]["namespace"] == policy["metadata"]["namespace"], "it selects pods beside it"
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            assert chosen <= group["template"]["metadata"]["labels"].items()
            ports = {one["name"]: one["containerPort"] for one in group["template"]["spec"]["containers"][0]["ports"]}
            assert ports[endpoint["port"]] in {one["port"] for one in rule["ports"]}


def test_every_priority_that_pods_name_is_defined_and_the_heads_is_highest(with_options: Path) -> None:
    for folder in sorted(with_options.glob("overlays/*/*")):
        if "local-kind" in folder.parts:
            continue
        values = {one["metadata"]["name"]: one["value"] for one in render(folder) if one["kind"] == "PriorityClass"}
        spec = cluster_spec(ray_resource(folder))
        head = spec["headGroupSpec"]["template"]["spec"]["priorityClassName"]
        for group in spec["workerGroupSpecs"]:
            assert values[group["template"]["spec"]["priorityClassName"]] < values[head]


def test_openshift_lets_the_images_user_in() -> None:
    for what in ("job", "cluster"):
        resources = render(KUBERNETES / "overlays/openshift" / what)
        (binding,) = [one for one in resources if one["kind"] == "RoleBinding"]
        bound = {one["name"] for one in binding["subjects"]}
        accounts = {one["metadata"]["name"] for one in resources if one["kind"] == "ServiceAccount"}
        assert bound >= accounts
        pods = [one["template"]["spec"] for one in groups(ray_resource(KUBERNETES / "overlays/openshift" / what))]
        assert {pod["serviceAccountName"] for pod in pods} == accounts
        assert all(pod["securityContext"]["runAsNonRoot"] for pod in pods)


def groups(resource: dict[str, Any]) -> list[dict[str, Any]]:
    spec = cluster_spec(resource)
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


@pytest.mark.parametrize(
    ("path", "wrong", "found"),
    [
        (("spec", "headGroupSpec", "rayStartParam"), {}, "rayStartParam"),
        (("spec", "enableInTreeAutoscalling"), True, "enableInTreeAutoscalling"),
        (("spec", "workerGroupSpecs", 0, "template", "spec", "containers", 0, "volumeMount"), [], "volumeMount"),
        (("spec", "workerGroupSpecs", 1, "maxReplicas"), "8", "is not of type 'integer'"),
    ],
)
def test_a_misspelt_field_is_refused(path: tuple[Any, ...], wrong: Any, found: str) -> None:
    resource = ray_resource(KUBERNETES / "cluster")
    place = resource
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = wrong
    with pytest.raises(jsonschema.ValidationError, match=found):
        check(resource)


def test_a_misspelt_field_of_a_core_kind_is_refused() -> None:
    (budget,) = [one for one in render(KUBERNETES / "cluster") if one["kind"] == "PodDisruptionBudget"]
    budget["spec"]["minAvailabel"] = 1
    with pytest.raises(kubernetes_validate.ValidationError, match="minAvailabel"):
        check(budget)


def test_rules_that_schemas_miss_are_checked() -> None:
    def broken(change: str) -> dict[str, Any]:
        spec = copy.deepcopy(cluster_spec(ray_resource(KUBERNETES / "cluster")))
        group = spec["workerGroupSpecs"][0]
        if change == "bounds":
            group["minReplicas"] = 99
        elif change == "names":
            group["groupName"] = spec["workerGroupSpecs"][1]["groupName"]
        elif change == "restart":
            group["template"]["spec"]["restartPolicy"] = "Always"
        elif change == "head":
            spec["headGroupSpec"]["rayStartParams"]["num-cpus"] = "4"
        return spec

    check_cluster(broken("nothing"))
    for change in ("bounds", "names", "restart", "head"):
        with pytest.raises(AssertionError):
            check_cluster(broken(change))
    job = ray_resource(KUBERNETES / "job")
    job["metadata"]["name"] = "x" * 48
    with pytest.raises(AssertionError, match="longer than 47"):
        check(job)


def test_job_and_cluster_have_the_same_nodes() -> None:
    job, cluster = (cluster_spec(ray_resource(KUBERNETES / what)) for what in ("job", "cluster"))
    head = job["headGroupSpec"]["template"]["spec"]
    assert head["volumes"].pop(1) == {"name": "config", "configMap": {"name": "distspectral-config"}}
    assert head["containers"][0]["volumeMounts"].pop(1)["mountPath"] == "/etc/distspectral"
    assert job == cluster


def pinned_ray() -> str:
    (version,) = re.findall(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.M)
    return str(version)


def test_ray_has_one_version_everywhere() -> None:
    import ray

    assert ray.__version__ == pinned_ray()
    assert f"ARG RAY_VERSION={pinned_ray()}\n" in (CONFIGS / "Dockerfile").read_text()
    for folder in FOLDERS:
        assert cluster_spec(ray_resource(folder))["rayVersion"] == pinned_ray()


def test_images_carry_the_packages_version() -> None:
    from distspectral import __version__

    for folder in OVERLAYS:
        images = {one["image"] for one in containers(ray_resource(folder))}
        assert images
        assert all(image.endswith(f":{__version__}") for image in images), images
    for file in (CONFIGS / "aws.yaml", CONFIGS / "gcp.yaml", CONFIGS / "Dockerfile"):
        versions = set(re.findall(r"distspectral-[cg]pu:([0-9.]+)", file.read_text()))
        assert versions == {__version__}, file


def test_nothing_is_reached_from_outside_and_ray_asks_for_a_token() -> None:
    for folder in FOLDERS:
        resources = render(folder)
        assert not {"Service", "Ingress", "Secret"} & {one["kind"] for one in resources}
        spec = cluster_spec(ray_resource(folder))
        assert spec["authOptions"] == {"mode": "token"}
        head = spec["headGroupSpec"]
        assert head["serviceType"] == "ClusterIP"
        assert "enableIngress" not in head
        (policy,) = [one for one in resources if one["kind"] == "NetworkPolicy"]
        chosen = policy["spec"]["podSelector"]["matchLabels"].items()
        for group in (head, *spec["workerGroupSpecs"]):
            assert chosen <= group["template"]["metadata"]["labels"].items()
            assert not any("hostPort" in port for port in group["template"]["spec"]["containers"][0]["ports"])
        assert all(rule["from"] for rule in policy["spec"]["ingress"])


def nodes_started_for(
    spec: dict[str, Any], demands: list[dict[str, float]], group: str | None = None
) -> dict[str, int]:
    """Return the nodes by group that Ray's own autoscaler would start for tasks that wait; none run yet.

    These parts of Ray are private; Ray is pinned to one version.
    """
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
    from ray.autoscaler.v2.utils import ResourceRequestUtil
    from ray.core.generated.common_pb2 import LabelSelectorOperator

    resource = {"metadata": {"name": "test", "namespace": "test"}, "spec": spec}
    config = AutoscalingConfig(_derive_autoscaling_config_from_ray_cr(resource), skip_content_hash=True)
    labels = None if group is None else [[("group", LabelSelectorOperator.LABEL_OPERATOR_IN, [group])]]
    requests = [ResourceRequestUtil.make(demand, label_selectors=labels) for demand in demands]
    reply = ResourceDemandScheduler().schedule(
        SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=config.get_node_type_configs(),
            max_num_nodes=config.get_max_num_worker_nodes(),
            resource_requests=ResourceRequestUtil.group_by_count(requests),
        )
    )
    return {launch.instance_type: launch.count for launch in reply.to_launch if launch.instance_type != "headgroup"}


@pytest.mark.parametrize("platform", ["gke", "eks", "aks", "openshift"])
def test_rays_autoscaler_starts_gpu_nodes_only_for_stages_that_ask_for_gpus(platform: str) -> None:
    spec = cluster_spec(ray_resource(KUBERNETES / "overlays" / platform / "job"))
    assert nodes_started_for(spec, []) == {}
    assert nodes_started_for(spec, [{"CPU": 1}] * 16) == {"cpu": 2}
    assert nodes_started_for(spec, [{"CPU": 4, "GPU": 1}] * 4) == {"gpu-spot": 4}
    assert nodes_started_for(spec, [{"CPU": 1}] * 168) == {"cpu": 20, "gpu-spot": 1}, "the CPU group is full"
    assert nodes_started_for(spec, [{"CPU": 1}] * 168, group="cpu") == {"cpu": 20}


@names
def test_the_jobs_config_is_one_that_we_read(folder: Path) -> None:
    found = [one for one in render(folder) if one["kind"] == "ConfigMap"]
    if folder.name == "cluster":
        assert not found
        return
    (config_map,) = found
    assert "/etc/distspectral/run.yaml" in ray_resource(folder)["spec"]["entrypoint"]
    assert list(config_map["data"]) == ["run.yaml"]
    load_config(KUBERNETES / "job" / "run.yaml")
