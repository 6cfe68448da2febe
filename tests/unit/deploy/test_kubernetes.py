"""The manifests: valid for every Kubernetes in use, strict, and in agreement with the server and themselves."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from kinglet.serving.served_model import open_model
from kinglet.serving.settings import PREFIX, Settings, read_settings
from tests.unit.serving.running_server import build_bundle, running

FOLDER = Path(__file__).resolve().parents[3] / "deploy" / "k8s"
# autoscaling/v2 and policy/v1 are in all of them; these are the oldest and the newest whose schemas are installed.
VERSIONS = ("1.25.0", "1.31.0", kubernetes_validate.latest_version())
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())


def read_manifests() -> list[dict[str, Any]]:
    names = KUSTOMIZATION["resources"]
    assert sorted(names) == sorted(path.name for path in FOLDER.glob("*.yaml") if path.name != "kustomization.yaml")
    return [manifest for name in names for manifest in yaml.safe_load_all((FOLDER / name).read_text())]


MANIFESTS = {manifest["kind"]: manifest for manifest in read_manifests()}
POD = MANIFESTS["Deployment"]["spec"]["template"]
SERVER = POD["spec"]["containers"][0]
ENVIRONMENT = {variable["name"]: variable["value"] for variable in SERVER["env"]}
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", MANIFESTS)
def test_manifest_is_valid_and_has_no_unknown_key(kind: str, version: str) -> None:
    kubernetes_validate.validate(MANIFESTS[kind], version, strict=True)


def test_a_misspelt_key_is_found() -> None:
    broken = {**MANIFESTS["Service"], "spec": {**MANIFESTS["Service"]["spec"], "selectors": {}}}
    with pytest.raises(kubernetes_validate.ValidationError, match="selectors"):
        kubernetes_validate.validate(broken, VERSIONS[-1], strict=True)


def test_probes_ask_paths_that_the_real_server_answers(tmp_path: Path) -> None:
    with running(open_model(build_bundle(tmp_path), 1)) as served:
        for probe in PROBES:
            assert served.client.get(SERVER[probe]["httpGet"]["path"]).status_code == 200, probe
        metrics = POD["metadata"]["annotations"]["prometheus.io/path"]
        assert served.client.get(metrics).status_code == 200


def test_every_port_is_the_one_that_the_server_listens_on() -> None:
    settings = read_settings(["bundle"], ENVIRONMENT, "server")
    ports = {port["name"]: port["containerPort"] for port in SERVER["ports"]}
    assert ports == {"http": settings.port}
    assert settings.host == "0.0.0.0"
    assert POD["metadata"]["annotations"]["prometheus.io/port"] == str(settings.port)
    named = [SERVER[probe]["httpGet"]["port"] for probe in PROBES]
    named += [port["targetPort"] for port in MANIFESTS["Service"]["spec"]["ports"]]
    named += [port["port"] for port in MANIFESTS["NetworkPolicy"]["spec"]["ingress"][0]["ports"]]
    assert set(named) == {"http"}


def test_every_variable_is_a_setting_of_the_server() -> None:
    known = {f"{PREFIX}{item.name.upper()}" for item in fields(Settings)}
    assert set(ENVIRONMENT) <= known


def test_the_last_answers_leave_before_the_kill() -> None:
    settings = read_settings(["bundle"], ENVIRONMENT, "server")
    assert POD["spec"]["terminationGracePeriodSeconds"] > settings.drain_delay + settings.drain_timeout
    # The endpoints forget a pod only after it says no.
    ready = SERVER["readinessProbe"]
    assert settings.drain_delay >= ready["periodSeconds"] * ready["failureThreshold"]


def test_every_selector_finds_the_pods() -> None:
    labels = POD["metadata"]["labels"].items()
    spec = {kind: manifest["spec"] for kind, manifest in MANIFESTS.items() if "spec" in manifest}
    selectors = [
        spec["Deployment"]["selector"]["matchLabels"],
        spec["Service"]["selector"],
        spec["PodDisruptionBudget"]["selector"]["matchLabels"],
        spec["NetworkPolicy"]["podSelector"]["matchLabels"],
        POD["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
    ]
    assert all(selector and selector.items() <= labels for selector in selectors)
    target = spec["HorizontalPodAutoscaler"]["scaleTargetRef"]
    of_target = {key: MANIFESTS["Deployment"][key] for key in ("apiVersion", "kind")}
    assert target == {**of_target, "name": MANIFESTS["Deployment"]["metadata"]["name"]}
    assert POD["spec"]["serviceAccountName"] == MANIFESTS["ServiceAccount"]["metadata"]["name"]


def test_the_pod_may_do_nothing_but_serve() -> None:
    pod, container = POD["spec"]["securityContext"], SERVER["securityContext"]
    assert pod["runAsNonRoot"]
    assert pod["runAsUser"] == 10001
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert POD["spec"]["automountServiceAccountToken"] is False
    assert POD["spec"]["enableServiceLinks"] is False
    assert [mount["mountPath"] for mount in SERVER["volumeMounts"]] == ["/tmp"]
    assert MANIFESTS["NetworkPolicy"]["spec"]["egress"] == []
    enforced = MANIFESTS["Namespace"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
    assert enforced == "restricted"


def test_all_pods_of_the_autoscaler_fit_into_the_quota_during_an_update() -> None:
    most = MANIFESTS["HorizontalPodAutoscaler"]["spec"]["maxReplicas"]
    pods = most + MANIFESTS["Deployment"]["spec"]["strategy"]["rollingUpdate"]["maxSurge"]
    hard = MANIFESTS["ResourceQuota"]["spec"]["hard"]
    assert int(hard["pods"]) >= pods
    for kind in ("requests", "limits"):
        for resource in ("cpu", "memory"):
            needed = pods * quantity(SERVER["resources"][kind][resource])
            assert quantity(hard[f"{kind}.{resource}"]) >= needed, (kind, resource)
    largest = MANIFESTS["LimitRange"]["spec"]["limits"][0]["max"]
    assert all(quantity(SERVER["resources"]["limits"][name]) <= quantity(largest[name]) for name in largest)


def quantity(text: str) -> float:
    """Return the number that Kubernetes means by 500m, 2 or 64Mi."""
    units = {"m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
    unit = next((unit for unit in units if text.endswith(unit)), "")
    return float(text.removesuffix(unit)) * units.get(unit, 1)


def test_an_update_and_a_drained_node_leave_a_pod_that_answers() -> None:
    assert MANIFESTS["Deployment"]["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    least = MANIFESTS["HorizontalPodAutoscaler"]["spec"]["minReplicas"]
    assert least > MANIFESTS["PodDisruptionBudget"]["spec"]["maxUnavailable"]


def test_kustomize_sets_namespace_and_version() -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl")
    done = subprocess.run(["kubectl", "kustomize", str(FOLDER)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    made = {manifest["kind"]: manifest for manifest in yaml.safe_load_all(done.stdout)}
    assert set(made) == set(MANIFESTS)
    assert {m["metadata"].get("namespace") for kind, m in made.items() if kind != "Namespace"} == {"kinglet"}
    image = made["Deployment"]["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == f"kinglet-serving:{KUSTOMIZATION['images'][0]['newTag']}" == SERVER["image"]
