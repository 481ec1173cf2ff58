"""The Kubernetes base: its parts are consistent with each other, and contain what they promise."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from workspace import PROJECTOR, ROOT, WAIT_S

BASE = ROOT / "deploy/kubernetes"
KUSTOMIZATION = yaml.safe_load((BASE / "kustomization.yaml").read_text())
RESOURCES = [yaml.safe_load((BASE / name).read_text()) for name in KUSTOMIZATION["resources"]]
MAPPING = json.loads((BASE / "bank.json").read_text())


def resource(kind: str) -> dict:
    (found,) = (r for r in RESOURCES if r["kind"] == kind)
    return found


POD = resource("Deployment")["spec"]["template"]
(CONTAINER,) = POD["spec"]["containers"]
PORT = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}


def test_the_base_names_every_file_and_each_is_a_resource():
    files = {path.name for path in BASE.glob("*.yaml")} - {"kustomization.yaml"}
    assert files == set(KUSTOMIZATION["resources"])
    assert all(r["apiVersion"] and r["kind"] and r["metadata"]["name"] for r in RESOURCES)


def test_two_replicas_stay_through_updates_and_drained_nodes():
    deployment = resource("Deployment")["spec"]
    assert deployment["replicas"] == 2
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert resource("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    (apart,) = POD["spec"]["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert apart["podAffinityTerm"]["topologyKey"] == "kubernetes.io/hostname"


def test_all_selectors_mean_the_pods():
    labels = POD["metadata"]["labels"]
    (apart,) = POD["spec"]["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    for selector in (resource("Deployment")["spec"]["selector"], resource("PodDisruptionBudget")["spec"]["selector"],
                     resource("NetworkPolicy")["spec"]["podSelector"], apart["podAffinityTerm"]["labelSelector"]):
        assert selector["matchLabels"] and selector["matchLabels"].items() <= labels.items()


def test_the_pods_satisfy_the_restricted_standard():
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/"""
    assert resource("Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    pod, own = POD["spec"]["securityContext"], CONTAINER["securityContext"]
    assert pod["runAsNonRoot"] is True and pod["runAsUser"] > 0 and pod["seccompProfile"]["type"] == "RuntimeDefault"
    assert own["allowPrivilegeEscalation"] is False and own["capabilities"] == {"drop": ["ALL"]}
    assert own["readOnlyRootFilesystem"] is True
    assert {"configMap", "secret"} == {kind for volume in POD["spec"]["volumes"] for kind in volume if kind != "name"}
    assert POD["spec"]["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & POD["spec"].keys()
    user = re.search(r"useradd --uid (\d+)", (ROOT / "Dockerfile").read_text())
    assert int(user[1]) == pod["runAsUser"] == pod["fsGroup"]


def test_probes_ask_what_the_program_answers():
    paths = {name: CONTAINER[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {name: get["path"] for name, get in paths.items()} == {
        "startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    assert {PORT[get["port"]] for get in paths.values()} == {int(MAPPING["http"].rpartition(":")[2])}
    assert MAPPING["http"].startswith("0.0.0.0:")
    assert int(POD["metadata"]["annotations"]["prometheus.io/port"]) == PORT["http"]


def test_the_network_policy_lets_through_what_the_mapping_needs_and_nothing_else():
    policy = resource("NetworkPolicy")["spec"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    assert [port["port"] for rule in policy["ingress"] for port in rule["ports"]] == [PORT["http"]]
    mysql = MAPPING["mysql"].get("port", 3306)
    assert {port["port"] for rule in policy["egress"] for port in rule["ports"]} == {53, 27017, mysql}
    assert all(rule.get("to") for rule in policy["egress"]) and all(rule.get("from") for rule in policy["ingress"])


def test_every_file_that_the_mapping_names_is_mounted():
    mounts = {mount["name"]: mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in POD["spec"]["volumes"]}
    assert mounts.keys() == volumes.keys()
    secrets = resource("Secret")
    assert volumes["secrets"]["secret"]["secretName"] == secrets["metadata"]["name"]
    uri = secrets["stringData"]["mongodb.uri"]
    named = [MAPPING["mongodb"]["uri_file"], MAPPING["mysql"]["password_file"], MAPPING["mysql"]["tls_ca"],
             re.search(r"tlsCAFile=([^&]+)", uri)[1]]
    assert {Path(name).parent for name in named} == {Path(mounts["secrets"])}
    assert {Path(name).name for name in named} == secrets["stringData"].keys()
    (generated,) = KUSTOMIZATION["configMapGenerator"]
    assert generated["name"] == volumes["mapping"]["configMap"]["name"]
    assert CONTAINER["args"][2] == f"{mounts['mapping']}/{generated['files'][0].partition('=')[0]}"
    assert all("CHANGE-ME" in value for value in secrets["stringData"].values())


def test_the_program_takes_the_mapping_file(tmp_path):
    text = (BASE / "bank.json").read_text()
    assert MAPPING["projections"] == json.loads((ROOT / "demo/bank.json").read_text())["projections"]
    for name, value in resource("Secret")["stringData"].items():
        (tmp_path / name).write_text(value.replace("/etc/projector/secrets", str(tmp_path)))
        (tmp_path / name).chmod(0o600)
    file = tmp_path / "bank.json"
    file.write_text(text.replace("/etc/projector/secrets", str(tmp_path)))
    done = subprocess.run([PROJECTOR, "schema", "-c", file], capture_output=True, text=True, timeout=WAIT_S)
    assert done.returncode == 0 and "CREATE TABLE" in done.stdout, done.stderr


@pytest.mark.skipif(not shutil.which("kubernetes-validate"), reason="there is no kubernetes-validate (pip install kubernetes-validate)")
def test_the_schema_of_kubernetes_knows_every_field():
    files = [BASE / name for name in KUSTOMIZATION["resources"]]
    done = subprocess.run(["kubernetes-validate", "--strict", *files], capture_output=True, text=True, timeout=WAIT_S)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not shutil.which("kubectl"), reason="there is no kubectl")
def test_kustomize_builds_it():
    built = subprocess.run(["kubectl", "kustomize", BASE], capture_output=True, text=True, timeout=WAIT_S,
                           env={**os.environ, "KUBECONFIG": "/dev/null"})
    assert built.returncode == 0, built.stderr
    documents = list(yaml.safe_load_all(built.stdout))
    assert {d["kind"] for d in documents} == {r["kind"] for r in RESOURCES} | {"ConfigMap"}
    (deployment,) = (d for d in documents if d["kind"] == "Deployment")
    (mapping,) = (d for d in documents if d["kind"] == "ConfigMap")
    volumes = {volume["name"]: volume for volume in deployment["spec"]["template"]["spec"]["volumes"]}
    assert volumes["mapping"]["configMap"]["name"] == mapping["metadata"]["name"] != "projector-mapping"
    assert {d["metadata"].get("namespace") for d in documents if d["kind"] != "Namespace"} == {"projector"}
