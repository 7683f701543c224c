"""What must not be in an image: ways to become root, secrets, and files that anybody may change."""

import json
import os
import re
import shutil
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import pytest

from unio4_lib.runs.spec import PipelineSpec, compiled

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("images")]

# One component of each image.
COMPONENTS = ("close-run", "clone-behavior", "improve-policy", "finetune-online")
SECRET_NAMES = re.compile(
    r"\.git|\.gitconfig|\.git-credentials|\.netrc|\.pypirc|\.npmrc|\.env|\.aws|\.docker|\.kube|\.ssh|\.pip"
    r"|pip\.conf|pip\.ini|kubeconfig|id_(rsa|dsa|ecdsa|ed25519)|.*\.(key|p12|pfx|kdbx)"
)
PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/=]{40}")
LONGEST_KEY = 64 << 10
CAPABILITY = "SCHILY.xattr.security.capability"


@contextmanager
def files_of(image: str) -> Iterator[tarfile.TarFile]:
    """The whole file system of an image, as a container has it."""
    made = subprocess.run(["docker", "create", image], capture_output=True, text=True, check=True)
    container = made.stdout.strip()
    try:
        with (
            subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE) as process,
            tarfile.open(fileobj=process.stdout, mode="r|") as files,
        ):
            yield files
    finally:
        subprocess.run(["docker", "rm", container], capture_output=True, check=True)


def faults(member: tarfile.TarInfo, content: bytes) -> Iterator[str]:
    if member.isfile() and member.mode & 0o6000:
        yield "runs as its owner, whoever starts it"
    if CAPABILITY in member.pax_headers:
        yield "has capabilities"
    if member.mode & 0o002 and (member.isfile() or (member.isdir() and not member.mode & 0o1000)):
        yield "may be changed by anybody"
    if SECRET_NAMES.fullmatch(PurePosixPath(member.name).name):
        yield "has a name of secrets"
    if PRIVATE_KEY.search(content):
        yield "has a private key"


def content_of(files: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if not member.isfile() or member.size > LONGEST_KEY:
        return b""
    opened = files.extractfile(member)
    assert opened is not None
    return opened.read()


@pytest.mark.parametrize("component", COMPONENTS)
def test_an_image_holds_no_way_to_more_rights_and_no_secret(component: str) -> None:
    image = PipelineSpec.load(compiled("unio4")).image(component)
    with files_of(image) as files:
        names, found = set(), []
        for member in files:
            names.add(member.name)
            found += [f"{member.name}: {fault}" for fault in faults(member, content_of(files, member))]
    assert "opt/app/bin/unio4" in names  # it was an image of ours that was looked at
    assert found == []


def test_what_lies_around_a_build_does_not_enter_it(repository: Path, tmp_path: Path) -> None:
    """A secret in the context, in the surroundings and in arguments of a build is nowhere in the image."""
    given, secret = repository / "build/images-cpu", f"canary-{uuid.uuid4().hex}"
    if not given.is_dir():
        pytest.skip(f"no {given}: make images")
    context = shutil.copytree(given, tmp_path / "context", copy_function=os.link)
    for name in (".git/config", ".netrc", "pip.conf", "ca.pem", ".env", ".aws/credentials"):
        (context / name).parent.mkdir(exist_ok=True)
        (context / name).write_text(secret)
    tag, base = f"unio4-scan:{secret}", base_of(PipelineSpec.load(compiled("unio4")).image("close-run"))
    build = ["docker", "build", "--quiet", "--file", f"{repository}/images/Dockerfile", "--tag", tag]
    build += ["--target", "prepare-dataset", *base]
    for variable in ("HTTPS_PROXY", "PIP_INDEX_URL", "PIP_CERT", "TOKEN"):
        build += ["--build-arg", f"{variable}=http://me:{secret}@127.0.0.1:9"]
    surroundings = {**os.environ, "PIP_CONFIG_FILE": str(context / "pip.conf")}
    subprocess.run([*build, str(context)], check=True, capture_output=True, env=surroundings)
    try:
        inspected = [["image", "inspect"], ["history", "--no-trunc"]]
        for words in inspected:
            said = subprocess.run(["docker", *words, tag], capture_output=True, text=True, check=True).stdout
            assert secret not in said.replace(tag, "")
        with files_of(tag) as files:
            for member in files:
                assert secret.encode() not in content_of(files, member), member.name
    finally:
        subprocess.run(["docker", "rmi", tag], capture_output=True, check=True)


def base_of(image: str) -> list[str]:
    """The build argument that this image was made with."""
    words = ["docker", "image", "inspect", "--format", "{{json .Config.Labels}}", image]
    labels = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    return ["--build-arg", f"BASE={labels['org.opencontainers.image.base.name']}"]
