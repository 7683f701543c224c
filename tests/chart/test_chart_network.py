"""Who may talk to whom, worked out from the network policies as a cluster would."""

import ipaddress
from typing import Any

import pytest
from chart_policy import chooses
from chart_values import GOOD
from rendered_chart import Manifest, containers, pod_labels, pod_spec, render

pytest.importorskip("helm_python", reason="real Helm: pip install helm-python-sdk")

COMPONENT = "app.kubernetes.io/component"
PORTS = {"postgresql": 5432, "s3": 8333, "mlflow": 5000, "SeaweedFS' master": 9333, "DNS": 53}
# A pod of the namespace that is none of the chart's, as those of the pipeline are.
PIPELINE: dict[str, str] = {}


class Network:
    """The policies of one release, asked about single connections."""

    def __init__(self, manifests: list[Manifest]) -> None:
        self.policies = [one["spec"] for one in manifests if one["kind"] == "NetworkPolicy"]
        self.pods = {"pipeline": PIPELINE}
        for manifest in manifests:
            if pod_spec(manifest):
                self.pods[pod_labels(manifest)[COMPONENT]] = pod_labels(manifest)
        self.ports = {
            port["name"]: port["containerPort"]
            for _, _, container in containers(manifests)
            for port in container.get("ports", [])
        }

    def guarded(self, labels: dict[str, str], direction: str) -> list[list[Any]]:
        """Rules of the policies that hold for a pod; nothing is forbidden where there is no policy."""
        found = [one for one in self.policies if chooses(one["podSelector"], labels)]
        return [one.get(direction.lower(), []) for one in found if direction in one["policyTypes"]]

    def admits(self, rule: dict[str, Any], other: Any, port: int) -> bool:
        peers = rule.get("to", rule.get("from"))
        ports = [self.ports.get(one["port"], one["port"]) for one in rule.get("ports", [])]
        return (not peers or any(self.is_peer(one, other) for one in peers)) and (not ports or port in ports)

    @staticmethod
    def is_peer(peer: dict[str, Any], other: Any) -> bool:
        """The other end is a pod's labels, the name of another namespace, or an address outside."""
        if isinstance(other, dict):
            return (
                "podSelector" in peer
                and "namespaceSelector" not in peer
                and chooses(peer["podSelector"], other)
            )
        if "ipBlock" in peer:
            return other[0].isdigit() and ipaddress.ip_address(other) in ipaddress.ip_network(
                peer["ipBlock"]["cidr"]
            )
        return "namespaceSelector" in peer and chooses(
            peer["namespaceSelector"], {"kubernetes.io/metadata.name": other}
        )

    def passes(self, source: str, target: str, port: int) -> bool:
        """Whether both ends let a connection through; ends that are no component are elsewhere."""
        start, end = self.pods.get(source, source), self.pods.get(target, target)
        leaves = self.guarded(start, "Egress") if isinstance(start, dict) else []
        enters = self.guarded(end, "Ingress") if isinstance(end, dict) else []
        out = not leaves or any(self.admits(rule, end, port) for rules in leaves for rule in rules)
        into = not enters or any(self.admits(rule, start, port) for rules in enters for rule in rules)
        return out and into


def connections(values: dict[str, Any], ends: tuple[str, ...]) -> set[tuple[str, str, str]]:
    """All that pass between components and to or from these other ends."""
    network = Network(render(values))
    everybody = (*network.pods, *ends)
    return {
        (source, target, name)
        for source in everybody
        for target in everybody
        for name, port in PORTS.items()
        if source != target and {source, target} & (set(network.pods) - {"pipeline"})
        if network.passes(source, target, port)
    }


def test_what_is_needed_passes_and_no_more() -> None:
    inside = connections({}, ("8.8.8.8", "elsewhere"))
    to_dns = {
        (source, end, "DNS") for source in ("mlflow", "jobs") for end in ("8.8.8.8", "elsewhere", "pipeline")
    }
    assert inside == to_dns | {
        ("mlflow", "postgresql", "postgresql"),
        ("mlflow", "s3", "s3"),
        ("jobs", "s3", "s3"),
        ("jobs", "mlflow", "mlflow"),
        ("pipeline", "s3", "s3"),
        ("pipeline", "mlflow", "mlflow"),
    }


def test_only_the_jobs_reach_kfp() -> None:
    network = Network(render({}))
    assert network.passes("jobs", "kubeflow", 8888)
    assert not network.passes("jobs", "kubeflow", 9000)
    assert not network.passes("jobs", "elsewhere", 8888)
    assert not network.passes("mlflow", "kubeflow", 8888)
    assert not Network(render({"kfp": {"enabled": False}})).passes("jobs", "kubeflow", 8888)


def test_services_outside_are_reached_where_they_are() -> None:
    network = Network(render(GOOD["database elsewhere"]))
    assert network.passes("mlflow", "10.1.2.3", 5432)
    assert not network.passes("mlflow", "8.8.8.8", 5432)
    assert not network.passes("jobs", "10.1.2.3", 5432)
    network = Network(render(GOOD["s3 elsewhere"]))
    assert network.passes("mlflow", "8.8.8.8", 9000) and network.passes("jobs", "8.8.8.8", 9000)
    # With keys nobody asks a cloud's token service.
    assert not network.passes("mlflow", "169.254.169.254", 80)
    assert Network(render(GOOD["team-aws"])).passes("mlflow", "169.254.170.23", 80)


def test_others_come_in_where_they_are_named() -> None:
    assert not Network(render({})).passes("gateways", "mlflow", 5000)
    network = Network(render(GOOD["air-gapped"]))
    assert network.passes("gateways", "mlflow", 5000)
    assert not network.passes("gateways", "postgresql", 5432)
    assert not network.passes("elsewhere", "mlflow", 5000)


@pytest.mark.parametrize("name", GOOD)
def test_every_pod_has_a_policy_for_both_directions(name: str) -> None:
    network = Network(render(GOOD[name]))
    off = GOOD[name].get("networkPolicy", {}).get("enabled") is False
    for component, labels in network.pods.items():
        expected = 0 if off or component == "pipeline" else 1
        assert len(network.guarded(labels, "Ingress")) == len(network.guarded(labels, "Egress")) == expected
