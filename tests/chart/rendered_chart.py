"""The chart as real Helm renders it, once for each set of values."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[2] / "charts" / "unio4"
# Kinds of operators, whose schemas do not come with Kubernetes: written by hand from their published API.
SCHEMAS = Path(__file__).parent / "schemas"
NAMESPACE = "team"
NOTES = "NOTES.txt"
LONGEST_RELEASE = "a" * 26 + "-" + "b" * 26  # 53 characters, the most that Helm takes
Manifest = dict[str, Any]


def render(values: dict[str, Any], release: str = "unio4") -> list[Manifest]:
    """All objects of a release, hooks and tests included."""
    files = rendered_files(values, release)
    texts = [text for name, text in sorted(files.items()) if not name.endswith(NOTES)]
    return [manifest for text in texts for manifest in _parsed(text)]


def rendered_files(values: dict[str, Any], release: str = "unio4") -> dict[str, str]:
    """What Helm makes of each template, by its path."""
    return _files(json.dumps(values), release)


def notes(values: dict[str, Any]) -> str:
    """What ``helm install`` prints at its end."""
    return next(text for name, text in rendered_files(values).items() if name.endswith(NOTES))


def check_schema(manifest: Manifest, version: str) -> None:
    """The object's schema, which must be known; what stands in many releases is looked at once."""
    _check_schema(json.dumps(manifest, sort_keys=True), version)


@cache
def _check_schema(manifest: str, version: str) -> None:
    import jsonschema
    import kubernetes_validate

    if not hasattr(utils := kubernetes_validate.utils, "schema_contents_once"):
        # It reads a megabyte of schemas again for each object.
        utils.schema_contents_once = utils.schema_contents = cache(utils.schema_contents)
    parsed = json.loads(manifest)
    if (own := SCHEMAS / f"{parsed['kind']}.json").exists():
        jsonschema.validate(parsed, json.loads(own.read_text()))
    else:
        kubernetes_validate.validate(parsed, version, strict=True)


@cache
def _files(values: str, release: str) -> dict[str, str]:
    from helm_python import Chart

    with Chart.load(CHART) as chart:
        return dict(chart.render(json.loads(values), name=release, namespace=NAMESPACE))


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML in which no key stands twice: tools disagree on which one counts."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key stands twice: {keys}"
        return dict(super().construct_mapping(node, deep))


@cache
def _parsed(text: str) -> tuple[Manifest, ...]:
    return tuple(found for found in yaml.load_all(text, _Loader) if found)


def find(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    """The one object of that kind and name."""
    [found] = [one for one in manifests if one["kind"] == kind and one["metadata"]["name"] == name]
    return found


def pod_spec(manifest: Manifest) -> dict[str, Any] | None:
    """The specification of the pods that an object is or makes."""
    owner = _pod_owner(manifest)
    return dict(owner["spec"]) if owner is not None and "spec" in owner else None


def pod_labels(manifest: Manifest) -> dict[str, str]:
    """Labels of the pods that an object is or makes."""
    owner = _pod_owner(manifest)
    assert owner is not None
    return dict(owner["metadata"]["labels"])


def _pod_owner(manifest: Manifest) -> Manifest | None:
    """The part of an object that its pods are made from."""
    if manifest["kind"] == "Pod":
        return manifest
    spec = manifest.get("spec", {})
    template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
    return template if isinstance(template, dict) else None


def containers(manifests: list[Manifest]) -> Iterator[tuple[Manifest, str, dict[str, Any]]]:
    """Every container with the object it belongs to and the list it stands in."""
    for manifest in manifests:
        spec = pod_spec(manifest) or {}
        for field in ("initContainers", "containers"):
            for container in spec.get(field, []):
                yield manifest, field, container
