"""The chart as real Helm renders it, once for each set of values."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[2] / "charts" / "unio4"
NAMESPACE = "team"
LONGEST_RELEASE = "a" * 26 + "-" + "b" * 26  # 53 characters, the most that Helm takes
Manifest = dict[str, Any]


def render(values: dict[str, Any], release: str = "unio4") -> list[Manifest]:
    """All objects of a release, hooks and tests included."""
    return [yaml_object for text in _texts(json.dumps(values), release) for yaml_object in _objects(text)]


@cache
def _texts(values: str, release: str) -> tuple[str, ...]:
    from helm_python import Chart

    with Chart.load(CHART) as chart:
        files = chart.render(json.loads(values), name=release, namespace=NAMESPACE)
    return tuple(text for name, text in sorted(files.items()) if not name.endswith("NOTES.txt"))


@cache
def _parsed(text: str) -> tuple[Manifest, ...]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return tuple(found for found in yaml.load_all(text, loader) if found)


def _objects(text: str) -> Iterator[Manifest]:
    yield from _parsed(text)


def notes(values: dict[str, Any]) -> str:
    """What ``helm install`` prints at its end."""
    from helm_python import Chart

    with Chart.load(CHART) as chart:
        files = chart.render(values, name="unio4", namespace=NAMESPACE)
    return next(text for name, text in files.items() if name.endswith("NOTES.txt"))


def find(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    """The one object of that kind and name."""
    [found] = [one for one in manifests if one["kind"] == kind and one["metadata"]["name"] == name]
    return found


def pod_spec(manifest: Manifest) -> dict[str, Any] | None:
    """The specification of the pods that an object is or makes."""
    if manifest["kind"] == "Pod":
        return dict(manifest["spec"])
    template = manifest.get("spec", {}).get("template")
    return dict(template["spec"]) if isinstance(template, dict) and "spec" in template else None


def containers(manifests: list[Manifest]) -> Iterator[tuple[Manifest, str, dict[str, Any]]]:
    """Every container with the object it belongs to and the list it stands in."""
    for manifest in manifests:
        spec = pod_spec(manifest) or {}
        for field in ("initContainers", "containers"):
            for container in spec.get(field, []):
                yield manifest, field, container
