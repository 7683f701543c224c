"""Register compiled pipelines in KFP, as new versions where they changed, and keep the recurring run.

Running it again with the same files changes nothing: a version is named by the digest of its content.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from services import Http, RefusedError, kfp_token, log, run, setting, wait_for

API = "/apis/v2beta1"
DIGEST_LENGTH = 12
MARK = "made by the chart of unio4; settings "


@dataclass(frozen=True)
class Pipeline:
    """A compiled pipeline in a file."""

    file: Path
    name: str
    description: str
    parameters: dict[str, Any]

    @classmethod
    def read(cls, file: Path) -> "Pipeline":
        """The first document is the pipeline; a second one has what is special to Kubernetes."""
        spec = next(iter(yaml.safe_load_all(file.read_text())), None)
        if not isinstance(spec, dict) or "pipelineInfo" not in spec:
            raise RefusedError(f"{file.name} is no compiled pipeline: it has no pipelineInfo")
        declared = spec["root"].get("inputDefinitions", {}).get("parameters", {})
        info = spec["pipelineInfo"]
        return cls(file, info["name"], info.get("description", ""), declared)

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.file.read_bytes()).hexdigest()[:DIGEST_LENGTH]


@dataclass(frozen=True)
class Registered:
    """A pipeline that KFP knows."""

    pipeline: Pipeline
    pipeline_id: str
    version_id: str


class Kfp:
    """The few calls of KFP's API that are needed here."""

    def __init__(self, endpoint: str, namespace: str) -> None:
        self.http = Http("KFP", endpoint, kfp_token)
        self.namespace = namespace

    def call(self, method: str, path: str, body: Any = None, **query: str) -> Any:
        """One request, repeated while KFP is starting."""
        return wait_for("KFP", lambda: self.http.call(method, API + path, body, **query))

    def listed(self, path: str, field: str, **query: str) -> Iterator[dict[str, Any]]:
        """All entries of a list that comes in pages."""
        while True:
            page = self.call("GET", path, **query)
            yield from page.get(field, [])
            if not page.get("next_page_token"):
                return
            query["page_token"] = page["next_page_token"]

    @property
    def scope(self) -> dict[str, str]:
        """Where things belong in a KFP of many users."""
        return {"namespace": self.namespace} if self.namespace else {}

    def pipeline_id(self, pipeline: Pipeline) -> str:
        """The pipeline of that name, made where it is missing."""
        for known in self.listed("/pipelines", "pipelines", page_size="100", **self.scope):
            if pipeline.name in (known.get("name"), known.get("display_name")):
                return str(known["pipeline_id"])
        names = {"name": pipeline.name, "display_name": pipeline.name}
        made = self.call("POST", "/pipelines", names | {"description": pipeline.description} | self.scope)
        log.info("pipeline %s made", pipeline.name)
        return str(made["pipeline_id"])

    def register(self, pipeline: Pipeline, version: str) -> Registered:
        """The newest version has this content: KFP runs the newest one, after a rollback too."""
        owner = self.pipeline_id(pipeline)
        versions = self.listed(f"/pipelines/{owner}/versions", "pipeline_versions", page_size="100")
        known = sorted(versions, key=lambda one: str(one.get("created_at", "")))
        names = [str(one.get("name") or one.get("display_name")) for one in known]
        if names and names[-1].partition("-")[2].startswith(pipeline.digest):
            log.info("pipeline %s: version %s is there", pipeline.name, names[-1])
            return Registered(pipeline, owner, str(known[-1]["pipeline_version_id"]))
        name = f"{version}-{pipeline.digest}"
        if again := sum(one == name or one.startswith(f"{name}-") for one in names):
            name = f"{name}-{again + 1}"
        content = pipeline.file.read_bytes()
        made = wait_for(
            "KFP",
            lambda: self.http.upload(
                f"{API}/pipelines/upload_version", pipeline.file.name, content, name=name, pipelineid=owner
            ),
        )
        log.info("pipeline %s: version %s registered", pipeline.name, name)
        return Registered(pipeline, owner, str(made["pipeline_version_id"]))

    def experiment_id(self, name: str) -> str:
        """The experiment of that name, made where it is missing."""
        for known in self.listed("/experiments", "experiments", page_size="100", **self.scope):
            if known.get("display_name") == name:
                return str(known["experiment_id"])
        return str(self.call("POST", "/experiments", {"display_name": name} | self.scope)["experiment_id"])

    def keep_recurring_run(self, name: str, wanted: dict[str, Any] | None) -> None:
        """One recurring run of that name with these settings, or none; others' are left alone."""
        there = False
        for known in list(self.listed("/recurringruns", "recurringRuns", page_size="100", **self.scope)):
            described = known.get("description", "")
            if known.get("display_name") != name or not described.startswith(MARK):
                continue
            there = wanted is not None and described == wanted["description"]
            if not there:
                # KFP cannot change one: the old one goes, a new one comes.
                self.call("DELETE", f"/recurringruns/{known['recurring_run_id']}")
                log.info("recurring run %s removed", name)
        if wanted is not None and not there:
            self.call("POST", "/recurringruns", wanted)
            log.info("recurring run %s made", name)


def recurring_run(
    kfp: Kfp, name: str, settings: dict[str, Any], registered: list[Registered]
) -> dict[str, Any]:
    """The request for a recurring run; parameters that the pipeline does not have are refused here."""
    known = {one.pipeline.name: one for one in registered}
    if settings["pipeline"] not in known:
        raise RefusedError(
            f"kfp.recurringRun.pipeline is {settings['pipeline']!r}; registered are {', '.join(known)}"
        )
    chosen = known[settings["pipeline"]]
    declared, given = chosen.pipeline.parameters, settings["parameters"]
    if extra := sorted(set(given) - set(declared)):
        raise RefusedError(
            f"kfp.recurringRun.parameters: {', '.join(extra)} is no parameter of "
            f"{chosen.pipeline.name}; it has {', '.join(declared) or 'none'}"
        )
    needed = {key for key, one in declared.items() if not one.get("isOptional")}
    if missing := sorted(needed - set(given)):
        raise RefusedError(f"kfp.recurringRun.parameters: {', '.join(missing)} is missing")
    request = {
        "display_name": name,
        "pipeline_version_reference": {
            "pipeline_id": chosen.pipeline_id,
            "pipeline_version_id": chosen.version_id,
        },
        "runtime_config": {"parameters": {key: given[key] for key in declared if key in given}},
        "service_account": settings["service_account"],
        "max_concurrency": str(settings["max_concurrency"]),
        "trigger": {"cron_schedule": {"cron": settings["cron"]}},
        "mode": "ENABLE",
        "no_catchup": True,
        "experiment_id": kfp.experiment_id(settings["experiment"]),
    } | kfp.scope
    content = json.dumps(request, sort_keys=True).encode()
    return request | {"description": MARK + hashlib.sha256(content).hexdigest()[:DIGEST_LENGTH]}


def main() -> None:
    """Everything comes from the job's environment and mounted files."""
    kfp = Kfp(setting("KFP_ENDPOINT"), setting("KFP_NAMESPACE", ""))
    files = sorted(Path(setting("PIPELINES")).glob("*.yaml"))
    if not files:
        raise RefusedError(f"no pipeline (*.yaml) in {setting('PIPELINES')}")
    registered = [kfp.register(Pipeline.read(file), setting("VERSION")) for file in files]
    name, settings = setting("RECURRING_RUN_NAME"), setting("RECURRING_RUN", "")
    wanted = recurring_run(kfp, name, json.loads(settings), registered) if settings else None
    kfp.keep_recurring_run(name, wanted)


if __name__ == "__main__":
    run(main)
