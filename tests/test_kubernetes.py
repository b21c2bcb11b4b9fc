"""The manifests in deploy/kubernetes: what they say of each other, of the image and of the settings."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from image_steps import PLAIN_USER, instructions
from running import ROOT

from reos import server
from reos.jobs import worker
from reos.settings import Settings

pytestmark = pytest.mark.unit

DIRECTORY = ROOT / "deploy" / "kubernetes"
SETTINGS = {name.upper() for name in Settings.model_fields}


def load(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DIRECTORY / f"{name}.yaml").read_text()))


ONE = {name: load(name)[0] for name in ("config", "api", "worker", "service", "disruption", "autoscaler", "migrate")}
PODS = {name: ONE[name]["spec"]["template"] for name in ("api", "worker", "migrate")}


def container(name: str) -> dict[str, Any]:
    found: dict[str, Any] = PODS[name]["spec"]["containers"][0]
    return found


def test_the_kustomization_names_the_files() -> None:
    kustomization = load("kustomization")[0]
    files = {path.name for path in DIRECTORY.iterdir()} - {"kustomization.yaml", "secret.yaml"}
    assert {*kustomization["resources"], "migrate.yaml", "secret.example.yaml"} - {"secret.yaml"} == files
    image = kustomization["images"][0]
    assert container("migrate")["image"] == f"{image['newName']}:{image['newTag']}"
    assert container("api")["image"] == container("worker")["image"] == image["name"]


def test_names_of_the_environment_are_settings() -> None:
    given = [*ONE["config"]["data"]]
    given += [name for secret in load("secret.example") for name in secret["stringData"]]
    given += [variable["name"] for pod in PODS for variable in container(pod).get("env", [])]
    assert set(given) <= SETTINGS
    assert all(isinstance(value, str) for value in ONE["config"]["data"].values())


def test_what_is_referred_to_is_there() -> None:
    known = {ONE["config"]["metadata"]["name"], *(secret["metadata"]["name"] for secret in load("secret.example"))}
    for pod in PODS:
        sources = [next(iter(source.values()))["name"] for source in container(pod)["envFrom"]]
        assert set(sources) <= known
        # The log-in that owns the tables is the migration's alone.
        assert ("reos-owner" in sources) == (pod == "migrate")
        volumes = {volume["name"] for volume in PODS[pod]["spec"]["volumes"]}
        assert {mount["name"] for mount in container(pod)["volumeMounts"]} == volumes


def test_selectors_select_the_pods() -> None:
    for name in ("api", "worker"):
        labels = PODS[name]["metadata"]["labels"].items()
        assert ONE[name]["spec"]["selector"]["matchLabels"].items() == labels
    api = PODS["api"]["metadata"]["labels"].items()
    assert ONE["service"]["spec"]["selector"].items() <= api
    assert ONE["disruption"]["spec"]["selector"]["matchLabels"].items() <= api
    assert not ONE["service"]["spec"]["selector"].items() <= PODS["worker"]["metadata"]["labels"].items()
    assert ONE["autoscaler"]["spec"]["scaleTargetRef"]["name"] == ONE["api"]["metadata"]["name"]
    assert "replicas" not in ONE["api"]["spec"], "the autoscaler's word"
    port = container("api")["ports"][0]
    assert ONE["service"]["spec"]["ports"][0]["targetPort"] == port["name"]
    assert str(port["containerPort"]) in [rest for word, rest in instructions() if word == "EXPOSE"]


def test_the_probes_are_the_documented_ones() -> None:
    api = container("api")
    for probe, path, period, timeout in (("livenessProbe", "/live", 30, 10), ("readinessProbe", "/ready", 5, 5)):
        assert api[probe]["httpGet"] == {"path": path, "port": "http"}
        assert (api[probe]["periodSeconds"], api[probe]["timeoutSeconds"]) == (period, timeout)
    for pod in ("api", "worker"):
        startup = container(pod)["startupProbe"]
        assert startup["periodSeconds"] * startup["failureThreshold"] >= 60


def test_there_is_time_to_stop() -> None:
    waits = int(container("api")["lifecycle"]["preStop"]["exec"]["command"][1])
    assert PODS["api"]["spec"]["terminationGracePeriodSeconds"] > waits + server.STOP_SECONDS
    assert PODS["worker"]["spec"]["terminationGracePeriodSeconds"] > worker.GRACE_SECONDS + 5


@pytest.mark.parametrize("pod", PODS)
def test_pods_may_do_little(pod: str) -> None:
    spec, one = PODS[pod]["spec"], container(pod)
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == spec["securityContext"]["runAsGroup"] == PLAIN_USER
    assert one["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert one["resources"]["requests"]
    assert one["resources"]["limits"]["memory"]
    assert {mount["mountPath"] for mount in one["volumeMounts"]} == {"/var/lib/reos", "/tmp"}
    assert one["command"][0] == "reos"
