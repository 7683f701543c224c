"""What a run asks of a cluster: from ``--needs KEY=VALUE`` to parameters of the pipeline."""

import re
from collections.abc import Iterable
from typing import Any

from unio4_lib.errors import InputError

Values = dict[str, Any]

QUANTITY = r"\d+(?:\.\d+)?(?:m|k|[KMGTPE]i?)?"
RANGE = re.compile(f"({QUANTITY})(?:-({QUANTITY}))?")
GPU = re.compile(r"(?:([\w.-]+/[\w.-]+):)?([1-9]\d*)")
LABEL = re.compile(r"([\w./-]+)=([\w.-]*)")
TOLERATION = re.compile(r"([\w./-]+)(?:=([\w.-]+))?(?::(NoSchedule|PreferNoSchedule|NoExecute))?")
USUAL_GPU = "nvidia.com/gpu"
EXPECTED = {
    "cpu": "cpu=2 or cpu=500m-4 (asked for, and at most)",
    "memory": "memory=8Gi or memory=2Gi-16Gi (asked for, and at most)",
    "gpu": f"gpu=1 ({USUAL_GPU}) or gpu=amd.com/gpu:2",
    "node": "node=LABEL=VALUE",
    "tolerate": "tolerate=KEY, KEY=VALUE or KEY:NoSchedule",
}


def parameters_of(needs: Iterable[str]) -> Values:
    """The parameters of a pipeline for what was asked; later words win, labels and tolerations add up."""
    found: Values = {}
    for text in needs:
        key, equals, value = text.partition("=")
        if key not in EXPECTED or not equals:
            raise InputError(f"--needs {text}: expected one of {'; '.join(EXPECTED.values())}")
        if not _add(found, key, value):
            raise InputError(f"--needs {text}: expected {EXPECTED[key]}")
    return found


def _add(found: Values, key: str, value: str) -> bool:
    """One word more; whether it is one."""
    if key in ("cpu", "memory"):
        if bounds := RANGE.fullmatch(value):
            found |= {f"{key}_request": bounds[1], f"{key}_limit": bounds[2] or bounds[1]}
        return bounds is not None
    if key == "gpu":
        if gpu := GPU.fullmatch(value):
            found |= {"accelerator": gpu[1] or USUAL_GPU, "accelerators": gpu[2]}
        return gpu is not None
    if key == "node":
        if label := LABEL.fullmatch(value):
            found.setdefault("node_selector", {})[label[1]] = label[2]
        return label is not None
    if taint := TOLERATION.fullmatch(value):
        wanted = {"key": taint[1], "operator": "Equal" if taint[2] else "Exists"}
        more = {"value": taint[2], "effect": taint[3]}
        found.setdefault("tolerations", []).append(
            wanted | {name: one for name, one in more.items() if one is not None}
        )
    return taint is not None
