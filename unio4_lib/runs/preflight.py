"""What a run names and has to be there, looked for in the seconds before its first stage starts."""

import os
import queue
import socket
import threading
from urllib.parse import urlsplit

from unio4_lib.artifacts.s3 import S3Settings, StoreUnavailable, check_credentials, make_client
from unio4_lib.artifacts.store import open_store
from unio4_lib.errors import ENCODED, InputError, is_address, without_user_info
from unio4_lib.files import local_path
from unio4_lib.tracking.address import NO_TRACKING, check_uri

SECONDS = 2.0  # that a server has to be found by its name and to take a connection
PORTS = {"http": 80, "https": 443}
AMAZON = ".amazonaws.com"
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


def check_places(dataset: str, artifact_root: str | None, tracking: str | None) -> None:
    """The data, its environment and the servers that were named; ``tracking`` only where it was asked for."""
    if artifact_root is not None:
        open_store(artifact_root)  # contacts nobody; a place that cannot be one is refused
    if dataset.startswith("s3:"):
        from unio4_lib.sources.remote import remote

        remote(dataset)  # likewise
    for place in (artifact_root or "", dataset):
        if place.startswith("s3:"):
            _check_store(place)
            break
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


def _check_store(place: str) -> None:
    """Whom the standard AWS variables and files mean takes a connection, and they say who we are."""
    named = next(filter(None, map(os.environ.get, ENDPOINTS)), None)
    if named is not None and not is_address(named):
        raise InputError(f"AWS_ENDPOINT_URL is {without_user_info(named)!r}, no address; {ENCODED}")
    endpoint = make_client(S3Settings()).meta.endpoint_url
    parts, shown = urlsplit(endpoint), without_user_info(endpoint)
    if parts.scheme in PORTS and not _answers(endpoint):
        remedy = "check AWS_ENDPOINT_URL, or start it"
        if (parts.hostname or "").endswith(AMAZON):
            remedy = "check the network, or set AWS_ENDPOINT_URL if another store is meant"
        raise StoreUnavailable(f"object storage at {shown} cannot be reached: nobody answers there; {remedy}")
    check_credentials(place, shown)


def _answers(url: str) -> bool:
    """Whether somebody takes a connection; behind a proxy that is not for us to say."""
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(url)
    try:
        address = parts.hostname or "", parts.port or PORTS[parts.scheme]
    except ValueError:  # the port is no number
        return False
    if parts.scheme in getproxies() and not proxy_bypass(address[0]):
        return True
    answers: queue.Queue[bool] = queue.Queue()
    # No time limit holds for the search for a name, so nobody waits for the thread that searches.
    threading.Thread(target=lambda: answers.put(_connects(address)), daemon=True).start()
    try:
        return answers.get(timeout=SECONDS)
    except queue.Empty:
        return False


def _connects(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, SECONDS).close()
    except (OSError, ValueError):  # ValueError: no name of a host at all
        return False
    return True
