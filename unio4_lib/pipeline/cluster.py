"""A Kubeflow Pipelines server: start a run there, and look how it goes."""

import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from unio4_lib.errors import InputError

if TYPE_CHECKING:
    from kfp import Client

DRIVER = "-driver"  # what prepares a task, and a task of the server itself
NOT_RUN = "RUNTIME_STATE_UNSPECIFIED"  # left out after a failure
LONGEST_REASON = 300


class ClusterAway(InputError):  # noqa: N818 - reads as a statement of what happened
    """Nobody answers there, or the server has trouble of its own."""


@dataclass(frozen=True)
class TaskState:
    """One task of a run; a stage of a sweep has one for each member."""

    stage: str
    state: str
    seconds: float | None


@dataclass(frozen=True)
class Cluster:
    """Where the server is and who asks."""

    endpoint: str | None
    token: str | None = None
    namespace: str | None = None
    service_account: str | None = None

    ENDED: ClassVar = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED")

    def submit(self, path: Path, arguments: dict[str, Any], name: str, experiment: str) -> str:
        """Start a run; returns its id."""
        with self._in_one_line(), redirect_stdout(io.StringIO()):  # the SDK prints addresses of its own
            started = self._client.create_run_from_pipeline_package(
                str(path),
                arguments=arguments,
                run_name=name,
                experiment_name=experiment,
                namespace=self.namespace,
                service_account=self.service_account,
            )
        if not started.run_id:
            raise InputError(
                f"{self.endpoint}: answers, but not as Kubeflow Pipelines does (with a login page?); "
                "expected the URL of its API, and a --token where it wants one"
            )
        run_id: str = started.run_id
        return run_id

    def page(self, run_id: str) -> str:
        """The address of a run for people."""
        return f"{self._url}/#/runs/details/{run_id}"

    def look(self, run_id: str, stages: Mapping[str, str]) -> tuple[str, list[TaskState]]:
        """State of the run, and its tasks that are stages in the order in which they began.

        The server also lists graphs, drivers and executors; ``stages`` has the names of the tasks that
        people know, by the pipeline's names for them. What has not begun is not listed.
        """
        with self._in_one_line():
            run = self._client.get_run(run_id)
        details = (run.run_details.task_details if run.run_details else None) or ()
        states = []
        for task in sorted(details, key=lambda task: str(task.start_time)):
            label, state = task.display_name or "", task.state or "PENDING"
            if state == "FAILED":  # a task whose driver failed never begins
                label = label.removesuffix(DRIVER)
            if label in stages and state != NOT_RUN:
                ended = task.end_time is not None and task.end_time.year > 1970  # the server's "never"
                seconds = (task.end_time - task.start_time).total_seconds() if ended else None
                states.append(TaskState(stages[label], state, seconds))
        return run.state or "PENDING", states

    @property
    def _url(self) -> str:
        if self.endpoint is None:
            raise InputError(
                "no --endpoint; expected the URL of Kubeflow Pipelines (or KF_PIPELINES_ENDPOINT)"
            )
        if not self.endpoint.startswith(("http://", "https://")):
            raise InputError(f"--endpoint {self.endpoint}: expected a URL with http:// or https://")
        return self.endpoint.rstrip("/")

    @cached_property
    def _client(self) -> "Client":
        from kfp import Client

        class Asking(Client):
            def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
                """Once: the SDK asks five times whatever the answer is, and logs a traceback each time."""
                return self._healthz_api.healthz_service_get_healthz()

        logging.getLogger("urllib3").setLevel(logging.ERROR)  # says of itself each time that it tries again
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Asking(host=self._url, existing_token=self.token, namespace=self.namespace or "kubeflow")

    @contextmanager
    def _in_one_line(self) -> Iterator[None]:
        """What the server refuses, or the way to it, as bad input."""
        if find_spec("kfp") is None:
            raise InputError("submitting needs the KFP SDK; pip install 'unio4[kfp]'")
        from kfp_server_api.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        try:
            yield
        except ApiException as error:
            if not error.status:  # no TLS, say
                raise self._away(error.reason) from error
            kind = ClusterAway if error.status >= 500 else InputError
            answer = f"{error.status} {error.reason}{_said(error.body)}"
            raise kind(f"{self.endpoint}: Kubeflow Pipelines answers {answer}") from error
        except HTTPError as error:
            raise self._away(type(error).__name__) from error

    def _away(self, why: str) -> ClusterAway:
        return ClusterAway(f"{self.endpoint}: no Kubeflow Pipelines answers there ({why})")


def _said(body: str | None) -> str:
    """What the server says beyond the status."""
    with suppress(ValueError, TypeError, KeyError):
        return f": {' '.join(json.loads(body or '')['message'].split())[:LONGEST_REASON]}"
    return ""
