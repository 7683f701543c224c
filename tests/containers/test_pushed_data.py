"""A pushed dataset that was harmed, read in the container that reads datasets, is one line."""

import subprocess
from pathlib import Path

import pytest
from pushed_sources import HARM, source_of
from servers import WeedBucket
from tiny_runs import call

from unio4_lib.runs.launch import ContainerLauncher
from unio4_lib.runs.spec import PipelineSpec, compiled

pytestmark = [pytest.mark.slow, pytest.mark.services, pytest.mark.usefixtures("images")]


def prepared(pushed: str, bucket: str) -> subprocess.CompletedProcess[str]:
    """prepare-dataset in a container that has nothing but the keys and the address of the store."""
    image = PipelineSpec.load(compiled("unio4")).image("close-run")  # the same, and no parameter
    command = ["unio4", "stage", "prepare-dataset", "--dataset", pushed, "--tracking", "none"]
    command += ["--artifact-root", f"s3://{bucket}/root", "--cache", "/tmp/cache", "--json", "--quiet"]
    launch = ContainerLauncher(()).command(image, command, {"UNIO4_CACHE": "/tmp/cache"})
    return subprocess.run(launch.command, env=launch.environment, capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize("harm", HARM)
def test_harm_is_one_line(
    harm: str,
    weed_bucket: WeedBucket,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pushed = f"s3://{weed_bucket.name}/log"
    assert call(capsys, "dataset", "push", source_of("transitions", tmp_path, monkeypatch), pushed)[0] == 0
    do, words = HARM[harm]
    do(weed_bucket.client, weed_bucket.name)
    done = prepared(pushed, weed_bucket.name)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ") and words in line
