"""Whether a cluster tries a stage again: Argo's rules, written out, over the compiled pipelines."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from quick_yaml import documents

from pipelines.compile import COMPILED

HOUR = 3600.0
AGAIN, FAILED = "again", "failed"


@dataclass
class Attempt:
    """One pod: when it began and ended, and how Argo calls its end.

    Error: its pod was deleted or its node lost. Failed: an exit code that is not 0, no memory, evicted, or
    its time is over.
    """

    began: float
    ended: float
    phase: str = "Error"


def decision(retry: dict[str, Any], attempts: list[Attempt], policy: str) -> tuple[str, float]:
    """What Argo 4.0 does after the last attempt, and when it ends the next one whatever that one does.

    Of workflow/controller/operator.go, processNodeRetries; ``policy`` is retryStrategy.retryPolicy.
    """
    deadline = attempts[0].began + seconds(retry["backoffMaxDuration"])
    last = attempts[-1]
    pause = seconds(retry["backoffDuration"]) * retry["backoffFactor"] ** (len(attempts) - 1)
    if last.ended + pause > deadline:
        return FAILED, deadline
    covered = {"Always": ("Failed", "Error"), "OnError": ("Error",), "OnFailure": ("Failed",)}[policy]
    if last.phase not in covered or len(attempts) > retry["maxRetryCount"]:
        return FAILED, deadline
    return AGAIN, deadline


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def retries(path: Path) -> dict[str, tuple[dict[str, Any], float]]:
    """Of each task that is a pod: how it is retried, and how long an attempt may take."""
    spec, platform = documents(path.read_text())
    extras = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    components = spec["components"]
    graphs = [one["dag"]["tasks"] for one in (spec["root"], *components.values()) if "dag" in one]
    found = {}
    for name, task in ((name, task) for tasks in graphs for name, task in tasks.items()):
        executor = components[task["componentRef"]["name"]].get("executorLabel")
        if executor is not None:
            found[name] = (task["retryPolicy"], float(extras[executor]["activeDeadlineSeconds"]))
    return found


@pytest.mark.parametrize("path", sorted(COMPILED.glob("*.yaml")), ids=lambda path: path.stem)
def test_attempts_of_any_length_are_tried_again_and_given_their_time(path: Path) -> None:
    for name, (retry, timeout) in retries(path).items():
        attempts: list[Attempt] = []
        at = 0.0
        for _ in range(retry["maxRetryCount"]):
            attempts.append(Attempt(at, at + timeout - 1))  # lost just before its own time is over
            what, deadline = decision(retry, attempts, "OnError")
            at = attempts[-1].ended + 60  # the pause, and a new pod
            assert what == AGAIN, name
            assert deadline >= at + timeout, f"{name}: the next attempt would be ended early"
        attempts.append(Attempt(at, at + timeout - 1))
        assert decision(retry, attempts, "OnError")[0] == FAILED, name


def test_the_paper_preset_has_days() -> None:
    for name, (_, timeout) in retries(COMPILED / "unio4.yaml").items():
        light = name in ("close-run", "decide-finetuning")
        assert timeout == (HOUR if light else 7 * 24 * HOUR), name


@pytest.mark.parametrize(
    ("policy", "lost", "failed"),
    [("OnError", AGAIN, FAILED), ("OnFailure", FAILED, AGAIN), ("Always", AGAIN, AGAIN)],
)
def test_what_is_retried_is_decided_by_the_installation(policy: str, lost: str, failed: str) -> None:
    """As docs/pipelines.md says it: KFP 2.17's own manifests say OnError."""
    retry, _ = retries(COMPILED / "unio4.yaml")["fit-critics"]
    assert decision(retry, [Attempt(0, HOUR, "Error")], policy)[0] == lost
    assert decision(retry, [Attempt(0, HOUR, "Failed")], policy)[0] == failed
