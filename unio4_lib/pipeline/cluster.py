"""A Kubeflow Pipelines server: start a run there, and look how it goes."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from unio4_lib.errors import InputError

if TYPE_CHECKING:
    from kfp import Client

# Graphs inside the pipeline are tasks of the server too; people know the stages.
GRAPHS = ("condition", "exit-handler", "for-loop", "root", "members")


@dataclass(frozen=True)
class TaskState:
    """One task of a run."""

    name: str
    state: str
    seconds: float | None


@dataclass(frozen=True)
class Cluster:
    """Where the server is and who asks."""

    endpoint: str | None
    token: str | None = None
    namespace: str | None = None

    ENDED: ClassVar = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED")

    def submit(self, path: Path, arguments: dict[str, Any], name: str, experiment: str) -> tuple[str, str]:
        """Start a run; returns its id and its address for people."""
        from kfp_server_api.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                started = self._client().create_run_from_pipeline_package(
                    str(path),
                    arguments=arguments,
                    run_name=name,
                    experiment_name=experiment,
                    namespace=self.namespace,
                )
        except ApiException as error:
            raise InputError(
                f"{self.endpoint}: Kubeflow Pipelines answers {error.status} {error.reason}"
            ) from error
        except HTTPError as error:
            raise InputError(
                f"{self.endpoint}: no Kubeflow Pipelines answers there ({type(error).__name__})"
            ) from error
        assert self.endpoint is not None
        return started.run_id, f"{self.endpoint.rstrip('/')}/#/runs/details/{started.run_id}"

    def look(self, run_id: str) -> tuple[str, list[TaskState]]:
        """State of the run and of its stages."""
        run = self._client().get_run(run_id)
        details = run.run_details.task_details if run.run_details else None
        states = []
        for task in details or ():
            if task.display_name and not task.display_name.startswith(GRAPHS) and not task.child_tasks:
                ended = task.end_time if task.end_time and task.end_time.year > 1970 else None
                seconds = (ended - task.start_time).total_seconds() if ended and task.start_time else None
                states.append(TaskState(task.display_name, task.state or "PENDING", seconds))
        return run.state or "PENDING", states

    def _client(self) -> "Client":
        if self.endpoint is None:
            raise InputError(
                "no --endpoint; expected the URL of Kubeflow Pipelines (or KF_PIPELINES_ENDPOINT)"
            )
        try:
            from kfp import Client
        except ModuleNotFoundError:
            raise InputError("submitting needs the KFP SDK; pip install 'unio4[kfp]'") from None
        return Client(host=self.endpoint, existing_token=self.token, namespace=self.namespace or "kubeflow")
