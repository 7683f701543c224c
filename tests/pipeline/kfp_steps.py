"""What a server of KFP lists of a run, in the shapes of published runs of KFP 2.

Beside each task its driver and executor, graphs and the run itself, in no order, nearly all of them with
children.
"""

from typing import Any

NEVER = "0001-01-01T00:00:00Z"
NODE = "unio4-x7k2p-1"  # of Argo: the run's name and a number


def step(state: str, **stages: str) -> dict[str, Any]:
    """A run as the server tells it: ``stages`` in the order in which they began, __1 for a further member."""
    tasks = [task("root", state), task("root-driver", "SUCCEEDED"), task("unio4-x7k2p", state)]
    for place, (key, stood) in enumerate(stages.items()):
        name = key.partition("__")[0].replace("_", "-")
        driver = "FAILED" if stood == "DRIVER_FAILED" else "SUCCEEDED"
        tasks.append(task(f"{name}-driver", driver, place))
        if driver == "SUCCEEDED":
            tasks += [task(name, stood, place), task("executor", stood, place, children=0)]
    return {"state": state, "run_details": {"task_details": tasks[::-1]}}


def task(name: str, state: str, place: int = 0, children: int = 1) -> dict[str, Any]:
    ended = NEVER if state in ("PENDING", "RUNNING") else f"2026-01-01T00:{place:02}:30Z"
    found: dict[str, Any] = {"display_name": name, "state": state, "end_time": ended}
    found |= {"start_time": f"2026-01-01T00:{place:02}:00Z", "task_id": f"id-{name}-{place}"}
    return found | ({"child_tasks": [{"pod_name": NODE}]} if children else {})


def pod_logs(line: str, template: str = "retry-system-container-impl-") -> dict[str, str]:
    """What the pod of the node has said; Argo puts the name of the template into that of the pod."""
    pod = f"unio4-x7k2p-{template}1"
    return {pod: f"time=... level=info msg=capturing\nprepare-dataset: reading\nerror: {line}\n"}
