"""Is this machine ready? One line for each thing that a run needs or that the environment names."""

import json
import os
import platform
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from unio4_lib.errors import ENCODED, is_address, without_user_info
from unio4_lib.runs.cluster import too_old

State = Literal["ok", "broken", "absent"]
MARKS: dict[State, str] = {"ok": "✔", "broken": "✘", "absent": "–"}
OLDEST_PYTHON = (3, 11)
# A run of the quick preset leaves tens of megabytes, a collected dataset a few hundred.
LEAST_FREE_GIB = 1.0
TIMEOUT_SECONDS = 3.0
IMAGE_VARIABLE = "UNIO4_IMAGE"  # which one this is; set in all of ours
LEFT_OUT = {
    "prepare-dataset": ("PyTorch",),
    "clone-behavior": ("MuJoCo", "native simulation", "Minari datasets"),
    "improve-policy": ("Minari datasets",),
}
GIB = 2**30
# A weight on a spring: the smallest model whose step uses forces and integration.
SMALL_MODEL = """
<mujoco><worldbody><body><joint type="slide" stiffness="10"/>
<geom size=".1" mass="1"/></body></worldbody></mujoco>
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check saw. ``absent``: not set up, and nothing needs it."""

    name: str
    state: State
    text: str

    def line(self) -> str:
        return f"{MARKS[self.state]} {self.name}: {without_user_info(self.text)}"


def examine(output: Path, environ: Mapping[str, str]) -> list[Finding]:
    """All checks, in the order in which a newcomer would need them."""
    checks: list[tuple[str, Callable[[], tuple[State, str]]]] = [
        ("Python", check_python),
        ("PyTorch", check_torch),
        ("MuJoCo", check_mujoco),
        ("native simulation", check_simulation),
        ("Minari datasets", lambda: check_minari(environ)),
        ("disk", lambda: check_disk(output)),
        ("S3", lambda: check_s3(environ)),
        ("MLflow", lambda: check_mlflow(environ)),
        ("Kubeflow Pipelines", lambda: check_kfp(environ)),
    ]
    image = environ.get(IMAGE_VARIABLE, "")
    return [
        Finding(name, "absent", f"not in the image {image}, whose stages do without it")
        if name in LEFT_OUT.get(image, ())
        else _guarded(name, check)
        for name, check in checks
    ]


def _guarded(name: str, check: Callable[[], tuple[State, str]]) -> Finding:
    try:
        return Finding(name, *check())
    except Exception as error:  # a doctor that dies of the disease tells nobody about it
        first_line = (str(error).splitlines() or ["no message"])[0]
        return Finding(name, "broken", f"{type(error).__name__}: {first_line}")


def check_python() -> tuple[State, str]:
    wanted = ".".join(map(str, OLDEST_PYTHON))
    if sys.version_info < OLDEST_PYTHON:
        return "broken", f"{platform.python_version()}; expected {wanted} or newer"
    return "ok", f"{platform.python_version()}, {os.cpu_count()} CPU cores"


def check_torch() -> tuple[State, str]:
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ones = torch.ones(8, 8, device=device)
    if float((ones @ ones).sum()) != 512.0:
        return "broken", f"{torch.__version__}: a matrix product on {device} is wrong"
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU only"
    return "ok", f"{torch.__version__}, {where}"


def check_mujoco() -> tuple[State, str]:
    import mujoco

    model = mujoco.MjModel.from_xml_string(SMALL_MODEL)
    data = mujoco.MjData(model)
    data.qpos[0] = 0.1
    mujoco.mj_step(model, data, nstep=10)
    if not 0.0 < float(data.qpos[0]) < 0.1:
        return "broken", f"{mujoco.__version__}: a spring does not pull"
    return "ok", f"{mujoco.__version__}, steps a model"


def check_simulation() -> tuple[State, str]:
    from unio4_lib.sim.batch import NativeSim

    sim = NativeSim("Hopper-v5", num_envs=2)
    try:
        observations = sim.reset(seed=0)
    finally:
        sim.close()
    return "ok", f"{sim.env_id}, {observations.shape[0]} environments at once"


def check_minari(environ: Mapping[str, str]) -> tuple[State, str]:
    named = environ.get("MINARI_DATASETS_PATH")
    folder = Path(named) if named else Path.home() / ".minari" / "datasets"
    if not folder.is_dir():
        return "absent", f"{folder} does not exist yet (MINARI_DATASETS_PATH chooses the folder)"
    count = sum(1 for _ in folder.glob("**/data/metadata.json"))
    return "ok", f"{count} dataset{'' if count == 1 else 's'} in {folder}"


def check_disk(output: Path) -> tuple[State, str]:
    folder = output.absolute()
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        return "broken", f"{folder} is not a folder that can be written to; choose another --output"
    free = shutil.disk_usage(folder).free / GIB
    if free < LEAST_FREE_GIB:
        return "broken", f"{free:.1f} GiB free at {folder}; expected at least {LEAST_FREE_GIB:.0f} GiB"
    return "ok", f"{free:.1f} GiB free at {folder}"


def check_s3(environ: Mapping[str, str]) -> tuple[State, str]:
    endpoint = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL")
    if not (endpoint or environ.get("AWS_ACCESS_KEY_ID") or environ.get("AWS_PROFILE")):
        return "absent", "neither AWS_ENDPOINT_URL nor credentials are set"
    try:
        import boto3
        from botocore.config import Config
    except ModuleNotFoundError:
        return "broken", "set, but boto3 is not installed; pip install 'unio4[s3]'"
    patience = Config(
        connect_timeout=TIMEOUT_SECONDS, read_timeout=TIMEOUT_SECONDS, retries={"total_max_attempts": 1}
    )
    buckets = boto3.client("s3", config=patience).list_buckets()["Buckets"]
    return "ok", f"{endpoint or 'AWS'}, {len(buckets)} buckets"


def check_mlflow(environ: Mapping[str, str]) -> tuple[State, str]:
    uri = environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        return "absent", "MLFLOW_TRACKING_URI is not set"
    if not is_address(uri):
        return "broken", f"{uri} is no address; {ENCODED}"
    if not uri.startswith(("http://", "https://")):
        return "ok", f"{without_user_info(uri)} (a local store)"
    return _answers(f"{without_user_info(uri).rstrip('/')}/health")


def check_kfp(environ: Mapping[str, str]) -> tuple[State, str]:
    endpoint = environ.get("KF_PIPELINES_ENDPOINT")
    if not endpoint:
        return "absent", "KF_PIPELINES_ENDPOINT is not set"
    base = endpoint if "://" in endpoint else f"http://{endpoint}"
    url = f"{base.rstrip('/')}/apis/v2beta1/healthz"
    state, text = _answers(url)
    if state == "ok":
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
            told = json.loads(response.read() or b"{}")
        release = str(told.get("tag_name", "")) if isinstance(told, dict) else ""
        if (reason := too_old(release)) is not None:
            return "broken", f"{base}: {reason}"
    return state, text


def _answers(url: str) -> tuple[State, str]:
    """Whether an HTTP server says 200 in time."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
            return "ok", f"{url} answers {response.status}"
    except urllib.error.HTTPError as error:
        return "broken", f"{url} answers {error.code} {error.reason}"
    except OSError as error:
        return "broken", f"{url} cannot be reached ({getattr(error, 'reason', error)})"
