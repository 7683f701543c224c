"""What a run names and has to be there, looked for in the seconds before its first stage starts."""

import os
import socket
from urllib.parse import urlsplit

from unio4_lib.artifacts.s3 import StoreUnavailable
from unio4_lib.artifacts.store import open_store
from unio4_lib.errors import ENCODED, InputError, is_address, without_user_info
from unio4_lib.files import local_path
from unio4_lib.tracking.address import NO_TRACKING, check_uri

SECONDS = 2.0  # that a server has to take a connection
PORTS = {"http": 80, "https": 443}
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


def check_places(dataset: str, artifact_root: str | None, tracking: str | None) -> None:
    """The data, its environment and the servers that were named; ``tracking`` only where it was asked for."""
    if artifact_root is not None:
        open_store(artifact_root)  # contacts nobody; a place that cannot be one is refused
    if any(place.startswith("s3:") for place in (dataset, artifact_root or "")):
        _check_store()
    if tracking not in (None, NO_TRACKING):
        check_uri(tracking)
    if tracking is not None and urlsplit(tracking).scheme in PORTS and not _answers(tracking):
        raise InputError(
            f"--tracking {without_user_info(tracking)}: nobody answers there; start the server, or leave "
            "--tracking out"
        )
    check_source(dataset)


def check_source(dataset: str) -> None:
    """The data of this machine is there; what is to be recorded or downloaded can be."""
    from unio4_lib.sources.given_policy import policy_folder
    from unio4_lib.sources.grammar import parse_source
    from unio4_lib.sources.preview import preview

    source = parse_source(dataset)
    place = local_path(source.place)
    missing = {
        "d4rl": (not place.is_file(), "no such file"),
        "transitions": (not place.is_dir(), "no such folder; give one written by Transitions.save"),
    }
    if source.scheme in missing and missing[source.scheme][0]:
        raise InputError(f"dataset {dataset}: {source.place}: {missing[source.scheme][1]}")
    try:
        if source.scheme == "minari":
            from unio4_lib.sources.minari_source import expect

            expect(source.place, SECONDS)
        if "policy" in source.options:
            policy_folder(source.options["policy"])
    except InputError as error:
        raise InputError(f"dataset {dataset}: {error}") from error
    # What is here says itself which environment it is of.
    env_id = source.options.get("env") or preview(dataset).env_id
    if env_id is not None:
        _check_environment(dataset, env_id)


def _check_environment(dataset: str, env_id: str) -> None:
    from unio4_lib.sim.registry import find_spec

    try:
        find_spec(env_id)
    except InputError as error:
        raise InputError(f"dataset {dataset}: {error}") from error


def _check_store() -> None:
    endpoint = next(filter(None, map(os.environ.get, ENDPOINTS)), None)
    if endpoint is not None and not is_address(endpoint):
        raise InputError(f"AWS_ENDPOINT_URL is {without_user_info(endpoint)!r}, no address; {ENCODED}")
    if endpoint is not None and urlsplit(endpoint).scheme in PORTS and not _answers(endpoint):
        raise StoreUnavailable(
            f"object storage at {without_user_info(endpoint)} cannot be reached: nobody answers there; "
            "check AWS_ENDPOINT_URL, or start it"
        )


def _answers(url: str) -> bool:
    """Whether somebody takes a connection; behind a proxy that is not for us to say."""
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(url)
    try:
        host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
        if parts.scheme in getproxies() and not proxy_bypass(host):
            return True
        socket.create_connection((host, port), SECONDS).close()
    except (OSError, ValueError):
        return False
    return True
