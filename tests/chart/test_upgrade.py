"""Releases through real Helm against an API in memory (see kube_api.py): what survives, and what goes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kube_api import KubeApi, Object
from rendered_chart import CHART

helm_python = pytest.importorskip("helm_python", reason="real Helm: pip install helm-python-sdk")
pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")

# Never changed: it is what the first users have. Made by `helm package` from the chart's first version.
FIRST = Path(__file__).parent / "released" / "unio4-0.1.0.tgz"
BEFORE: dict[str, Any] = {"mlflow": {"auth": {"enabled": True}}}
AFTER: dict[str, Any] = {
    "commonLabels": {"team": "rl"},
    "database": {"internal": {"persistence": {"size": "30Gi"}}},
    "s3": {"internal": {"persistence": {"size": "40Gi"}}, "prefix": "shared"},
    "mlflow": {
        "auth": {"enabled": True, "adminUsername": "root"},
        "replicas": 2,
        "podDisruptionBudget": {"enabled": True},
    },
    "networkPolicy": {"enabled": False},
}
FIRST_GENERATED = {"unio4-s3", "unio4-postgresql", "unio4-mlflow"}
GENERATED = FIRST_GENERATED | {"unio4-s3-pipeline", "unio4-mlflow-pipeline"}


class Release:
    """A release in a namespace of the API in memory."""

    def __init__(self, api: KubeApi) -> None:
        self.api = api
        self.helm = helm_python.Config(kubeconfig_content=api.kubeconfig, namespace="team")

    def install(self, chart: Path, values: dict[str, Any]) -> None:
        self.helm.install(chart, "unio4", values, namespace="team", wait="hookOnly", timeout=600)

    def upgrade(self, chart: Path, values: dict[str, Any]) -> None:
        self.helm.upgrade(chart, "unio4", values, namespace="team", wait="hookOnly", timeout=600)

    def secrets(self) -> dict[str, Object]:
        found = self.api.found("Secret")
        return {name: one["data"] for name, one in found.items() if name in GENERATED}

    def claims(self) -> dict[str, str]:
        return {name: one["metadata"]["uid"] for name, one in self.api.found("PersistentVolumeClaim").items()}


@pytest.fixture
def release() -> Iterator[Release]:
    api = KubeApi()
    api.start()
    made = Release(api)
    yield made
    made.helm.close()
    api.stop()


def test_upgrade_from_the_first_version_keeps_secrets_and_volumes(release: Release) -> None:
    release.install(FIRST, BEFORE)
    secrets, claims = release.secrets(), release.claims()
    assert set(secrets) == FIRST_GENERATED
    assert set(claims) == {"unio4-s3", "unio4-postgresql"}
    release.api.history.clear()

    release.upgrade(CHART, AFTER)
    # What else was in the first version's secret of S3 (its place) comes from the ConfigMap now.
    after = release.secrets()
    assert set(after) == GENERATED
    assert all(after[name].items() <= secrets[name].items() for name in FIRST_GENERATED)
    assert release.claims() == claims
    grown = release.api.found("PersistentVolumeClaim").values()
    assert {one["spec"]["resources"]["requests"]["storage"] for one in grown} == {"30Gi", "40Gi"}
    assert release.api.found("Deployment")["unio4-mlflow"]["spec"]["replicas"] == 2
    # The jobs ran again: the bucket's, and the one that registers what changed.
    assert set(release.api.found("StatefulSet")) == {"unio4-s3", "unio4-postgresql"}
    assert set(release.api.found("Deployment")) == {"unio4-mlflow"}
    jobs = [name for verb, kind, name in release.api.history if (verb, kind) == ("create", "Job")]
    assert jobs == ["unio4-bucket", "unio4-user", "unio4-register"]
    assert not release.api.found("Job")
    assert not release.api.found("NetworkPolicy")


def test_every_generated_value_stays_through_more_upgrades(release: Release) -> None:
    values = {"kfp": {"enabled": False}, "s3": {"createBucket": {"enabled": False}}} | BEFORE
    release.install(CHART, values)
    secrets = release.secrets()
    assert len({value for data in secrets.values() for value in data.values()}) == 10
    for number in range(2):
        release.upgrade(CHART, values | {"podAnnotations": {"n": str(number)}})
        assert release.secrets() == secrets


def test_a_rollback_registers_what_it_went_back_to(release: Release) -> None:
    release.install(CHART, {})
    release.upgrade(CHART, {"pipeline": {"parameters": {"preset": "paper"}}})
    release.api.history.clear()
    release.helm.rollback("unio4", wait="hookOnly", timeout=600)
    jobs = [name for verb, kind, name in release.api.history if (verb, kind) == ("create", "Job")]
    assert jobs == ["unio4-bucket", "unio4-register"]


def test_a_volume_does_not_become_smaller(release: Release) -> None:
    """What a cluster would say: the API in memory says it too, so the tests above mean something."""
    release.install(CHART, {"kfp": {"enabled": False}})
    smaller = {"kfp": {"enabled": False}, "s3": {"internal": {"persistence": {"size": "1Gi"}}}}
    with pytest.raises(helm_python.errors.HelmError, match="cannot become smaller"):
        release.upgrade(CHART, smaller)


def test_uninstalled_and_installed_again_it_finds_its_secrets(release: Release) -> None:
    release.install(CHART, BEFORE)
    secrets, claims = release.secrets(), release.claims()
    release.helm.uninstall("unio4")
    left = {key[2] for key in release.api.objects}
    assert left == {"Secret", "PersistentVolumeClaim"}
    release.install(CHART, BEFORE)
    assert (release.secrets(), release.claims()) == (secrets, claims)
