"""The test of a release: a real round trip through each service, as the pipeline's pods may make it.

The first that fails ends it by name.
"""

import os
import time
import urllib.parse
import uuid

from botocore.exceptions import BotoCoreError, ClientError
from services import (
    Http,
    NotReadyError,
    RefusedError,
    basic_auth,
    kfp_token,
    log,
    run,
    s3_client,
    setting,
    wait_for,
)

EXPERIMENT = "unio4-release-test"
MLFLOW = "/api/2.0/mlflow"


def check_s3(content: bytes) -> None:
    """Put an object, get the same bytes, delete it."""
    place = urllib.parse.urlsplit(setting("FOLDER"))
    bucket, key = place.netloc, f"{place.path.lstrip('/')}/{uuid.uuid4()}"
    client = s3_client()
    try:
        client.put_object(Bucket=bucket, Key=key, Body=content)
        found = client.get_object(Bucket=bucket, Key=key)["Body"].read()
        client.delete_object(Bucket=bucket, Key=key)
    except ClientError as error:
        raise RefusedError(f"S3: s3://{bucket}/{key}: {error}") from error
    except BotoCoreError as error:
        raise NotReadyError(str(error)) from error
    if found != content:
        raise RefusedError(f"S3: s3://{bucket}/{key} came back with other bytes")
    log.info("ok  S3: an object was put, read back and deleted in %s", setting("FOLDER"))


def experiment_id(mlflow: Http) -> str:
    """The test's own experiment, made at the first time."""
    try:
        known = mlflow.call("GET", f"{MLFLOW}/experiments/get-by-name", experiment_name=EXPERIMENT)
        return str(known["experiment"]["experiment_id"])
    except RefusedError as error:
        if "RESOURCE_DOES_NOT_EXIST" not in str(error):
            raise
    return str(mlflow.call("POST", f"{MLFLOW}/experiments/create", {"name": EXPERIMENT})["experiment_id"])


def check_mlflow(content: bytes) -> None:
    """Write a run with a metric and a file (by MLflow to S3), read both back, delete the run."""
    mlflow = Http("MLflow", setting("MLFLOW_TRACKING_URI"), basic_auth)
    now = int(time.time() * 1000)
    asked = {"experiment_id": experiment_id(mlflow), "run_name": "installation test", "start_time": now}
    run = mlflow.call("POST", f"{MLFLOW}/runs/create", asked)["run"]["info"]
    one = {"run_id": run["run_id"], "key": "round_trip", "value": 4.0, "timestamp": now}
    mlflow.call("POST", f"{MLFLOW}/runs/log-metric", one)
    read = mlflow.call("GET", f"{MLFLOW}/runs/get", run_id=run["run_id"])["run"]["data"]["metrics"]
    if [metric["value"] for metric in read] != [4.0]:
        raise RefusedError(f"MLflow: the metric came back as {read}")

    if run["artifact_uri"].startswith("mlflow-artifacts:"):
        folder = urllib.parse.urlsplit(run["artifact_uri"]).path.strip("/")
        path = f"/api/2.0/mlflow-artifacts/artifacts/{folder}/round_trip.bin"
        mlflow.call("PUT", path, content)
        if mlflow.call("GET", path) != content:
            raise RefusedError(f"MLflow: the file {path} came back with other bytes")
        mlflow.call("DELETE", path)
    mlflow.call("POST", f"{MLFLOW}/runs/delete", {"run_id": run["run_id"]})
    log.info("ok  MLflow: a run, a metric and a file were written, read back and deleted")


def check_kfp() -> None:
    """Its API answers, and lets these credentials see pipelines."""
    kfp = Http("KFP", setting("KFP_ENDPOINT"), kfp_token)
    namespace = os.environ.get("KFP_NAMESPACE")
    kfp.call("GET", "/apis/v2beta1/healthz")
    scope = {"namespace": namespace} if namespace else {}
    found = kfp.call("GET", "/apis/v2beta1/pipelines", page_size="100", **scope).get("pipelines", [])
    names = sorted(pipeline["display_name"] for pipeline in found)
    log.info("ok  KFP: it answers and knows %s", ", ".join(names) or "no pipeline yet")


def main() -> None:
    """KFP is left out where the chart does not use it."""
    content = b"\x00unio4 " + os.urandom(32)
    wait_for("S3", lambda: check_s3(content))
    wait_for("MLflow", lambda: check_mlflow(content))
    if os.environ.get("KFP_ENDPOINT"):
        wait_for("KFP", check_kfp)


if __name__ == "__main__":
    run(main)
