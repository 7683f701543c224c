"""A Kubeflow Pipelines server: start a run there, look how it goes, and hear why it failed."""

import io
import json
import logging
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from copy import copy
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from unio4_lib.errors import InputError
from unio4_lib.runs.spec import PipelineSpec

if TYPE_CHECKING:
    from kfp import Client

Answer = TypeVar("Answer")

DRIVER = "-driver"  # what prepares a task, and a task of the server itself
NOT_RUN = "RUNTIME_STATE_UNSPECIFIED"  # left out after a failure
LONGEST_REASON = 300
FOLLOW_SECONDS = 5.0
PATIENCE_SECONDS = 300.0
OLDEST = (2, 16)  # earlier ones refuse what the pipeline says of its security context
RELEASE = re.compile(r"v?(\d+)\.(\d+)")
# Of Argo's templates that KFP makes: with the run's name and the number of a node they name its pod.
TEMPLATES = ("retry-system-container-impl", "system-container-impl")
MOST_LOGS = 60  # that are looked through for a reason
ERROR_MARK = "error: "
PAGE_SIZE = 50
ANSWER_ONLY: dict[str, Any] = {"_return_http_data_only": True}
EQUALS, IS_SUBSTRING = 1, 9  # of KFP's filters


class ClusterAway(InputError):  # noqa: N818 - reads as a statement of what happened
    """Nobody answers there, or the server has trouble of its own."""


class Patience:
    """Asks a server that may be away for a while; what runs there goes on without us."""

    def __init__(self) -> None:
        self._answered = time.monotonic()

    def ask(self, question: Callable[[], Answer]) -> Answer | None:
        """The answer; None while nobody answers, but not for ever."""
        try:
            answer = question()
        except ClusterAway:
            if time.monotonic() - self._answered > PATIENCE_SECONDS:
                raise
            return None
        self._answered = time.monotonic()
        return answer

    def pause(self) -> None:
        """Between two questions."""
        time.sleep(FOLLOW_SECONDS)


@dataclass(frozen=True)
class TaskState:
    """One task of a run; a stage of a sweep has one for each member."""

    stage: str
    state: str
    seconds: float | None


@dataclass(frozen=True)
class Version:
    """A pipeline that is registered there."""

    pipeline_id: str
    version_id: str
    spec: PipelineSpec


@dataclass(frozen=True)
class Cluster:
    """Where the server is and who asks."""

    endpoint: str | None
    token: str | None = None
    namespace: str | None = None
    service_account: str | None = None

    ENDED: ClassVar = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED")

    def submit(self, what: Path | Version, arguments: dict[str, Any], name: str, experiment: str) -> str:
        """Start a run of a compiled file or of what is registered; returns its id."""
        source: dict[str, str] = {"pipeline_package_path": str(what)}
        if isinstance(what, Version):
            source = {"pipeline_id": what.pipeline_id, "version_id": what.version_id}
        with self._in_one_line(), redirect_stdout(io.StringIO()):  # the SDK prints addresses of its own
            started = self._client.run_pipeline(
                self._experiment(experiment),
                name,
                params=arguments,
                service_account=self.service_account,
                **source,
            )
        run_id: str = started.run_id
        return run_id

    def registered(self, name: str) -> Version:
        """The newest version of a pipeline that is registered there."""
        with self._in_one_line():
            asked = {"filter": _filter("display_name", EQUALS, name), "page_size": PAGE_SIZE}
            found = self._client.list_pipelines(namespace=self.namespace, **asked).pipelines
            if not found and self.namespace is not None:  # one that all namespaces share
                found = self._client.list_pipelines(**asked).pipelines
            if not found:
                raise InputError(f"--registered {name}: no such pipeline at {self.endpoint}")
            owner = found[0].pipeline_id
            versions = self._client.list_pipeline_versions(owner, page_size=1, sort_by="created_at desc")
            if not versions.pipeline_versions:
                raise InputError(f"--registered {name}: the pipeline has no version yet")
            newest = versions.pipeline_versions[0]
        document = newest.pipeline_spec or {}
        try:
            spec = PipelineSpec.of(document.get("pipeline_spec", document))
        except (KeyError, TypeError) as error:
            raise InputError(f"--registered {name}: not a pipeline of KFP 2 ({error} is missing)") from error
        return Version(owner, newest.pipeline_version_id, spec)

    def runs(self, experiment: str, prefix: str) -> dict[str, tuple[str, str]]:
        """Id and state of the newest run of each name that begins so."""
        found: dict[str, tuple[str, str]] = {}
        token: str | None = ""
        with self._in_one_line():
            owner = self._experiment(experiment)
            while token is not None:
                page = self._client.list_runs(
                    page_token=token,
                    page_size=PAGE_SIZE,
                    sort_by="created_at desc",
                    experiment_id=owner,
                    filter=_filter("display_name", IS_SUBSTRING, prefix),
                )
                for run in page.runs or ():
                    if run.display_name.startswith(prefix):
                        found.setdefault(run.display_name, (run.run_id, run.state or "PENDING"))
                token = page.next_page_token or None
        return found

    def stop(self, run_id: str) -> None:
        """End a run; its exit handler still runs."""
        with self._in_one_line():
            self._client.terminate_run(run_id)

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
        states, ended = [], run.state in self.ENDED
        for task in sorted(_details(run), key=lambda task: str(task.start_time)):
            label, state = task.display_name or "", task.state or "PENDING"
            if state == "FAILED":  # a task whose driver failed never begins
                label = label.removesuffix(DRIVER)
            if label in stages and state != NOT_RUN and not (ended and state == "PENDING"):
                over = task.end_time is not None and task.end_time.year > 1970  # the server's "never"
                seconds = (task.end_time - task.start_time).total_seconds() if over else None
                states.append(TaskState(stages[label], state, seconds))
        return run.state or "PENDING", states

    def reason(self, run_id: str) -> str | None:
        """The one line of the stage that failed, from the logs of its pods as long as they are there."""
        for log in self.logs(run_id, "FAILED"):
            told = [line for line in log.splitlines() if line.startswith(ERROR_MARK)]
            if told:
                return told[-1].removeprefix(ERROR_MARK)
        return None

    def logs(self, run_id: str, state: str) -> Iterator[str]:
        """What the pods below tasks of a state have said; KFP names nodes of Argo, which name the pods."""
        with self._in_one_line():
            run = self._client.get_run(run_id)
        tasks = [task for task in _details(run) if task.state == state]
        nodes = dict.fromkeys(child.pod_name for task in tasks for child in task.child_tasks or ())
        for node in [node for node in nodes if node][:MOST_LOGS]:
            workflow, _, number = node.rpartition("-")
            for pod in (*(f"{workflow}-{template}-{number}" for template in TEMPLATES), node):
                with suppress(InputError):  # most nodes are no pods
                    yield self._text(f"/apis/v1alpha1/runs/{run_id}/nodes/{pod}/log")

    def _text(self, path: str) -> str:
        """What the server answers to a question for which the SDK has no words."""
        with self._in_one_line():
            answer = self._client._run_api.api_client.call_api(
                path, "GET", auth_settings=["Bearer"], _preload_content=False, _return_http_data_only=True
            )
        text: str = answer.data.decode(errors="replace")
        return text

    def _experiment(self, name: str) -> str:
        """The experiment of a name, made where it is missing."""
        with redirect_stdout(io.StringIO()):
            found = self._client.create_experiment(name, namespace=self.namespace)
        identity: str = found.experiment_id
        return identity

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

            def _create_job_config(self, params: dict[str, Any] | None, **told: Any) -> Any:
                """Members of a sweep share a file, which the SDK takes half a second to read."""
                config = copy(self._read(**told))
                config.runtime_config = copy(config.runtime_config)
                config.runtime_config.parameters = params
                return config

            @cache  # noqa: B019 - there is one client in a command
            def _read(self, **told: Any) -> Any:
                return super()._create_job_config(params={}, **told)

        logging.getLogger("urllib3").setLevel(logging.ERROR)  # says of itself each time that it tries again
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            client = Asking(host=self._url, existing_token=self.token, namespace=self.namespace or "kubeflow")
        self._check_release(client)
        return client

    def _check_release(self, client: "Client") -> None:
        """Somebody answers there, as Kubeflow Pipelines does, and can run the pipeline."""
        answer = client._run_api.api_client.call_api(
            "/apis/v2beta1/healthz", "GET", auth_settings=["Bearer"], response_type="object", **ANSWER_ONLY
        )
        if not isinstance(answer, dict):
            raise InputError(
                f"{self.endpoint}: answers, but not as Kubeflow Pipelines does (with a login page?); "
                "expected the URL of its API, and a --token where it wants one"
            )
        if (reason := too_old(str(answer.get("tag_name", "")))) is not None:
            raise InputError(f"{self.endpoint}: {reason}")

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


def too_old(release: str) -> str | None:
    """Why a server of this release cannot run the pipeline; builds of one's own may have no number."""
    number = RELEASE.match(release)
    if number is None or (int(number[1]), int(number[2])) >= OLDEST:
        return None
    oldest = ".".join(map(str, OLDEST))
    return f"Kubeflow Pipelines {release} is too old for the pipeline; expected {oldest} or newer"


def _details(run: Any) -> tuple[Any, ...]:
    """The tasks of a run, as far as the server lists any."""
    return tuple((run.run_details.task_details if run.run_details else None) or ())


def _filter(key: str, operation: int, value: str) -> str:
    return json.dumps({"predicates": [{"operation": operation, "key": key, "stringValue": value}]})


def _said(body: str | None) -> str:
    """What the server says beyond the status."""
    with suppress(ValueError, TypeError, KeyError):
        return f": {' '.join(json.loads(body or '')['message'].split())[:LONGEST_REASON]}"
    return ""
