"""The address of MLflow with a user's password in it: who needs it gets it, and nobody else sees it."""

import os
from collections.abc import Mapping, MutableMapping
from urllib.parse import unquote, urlsplit

from unio4_lib.errors import InputError
from unio4_lib.tracking.tracker import without_password

ADDRESS_VARIABLE = "UNIO4_TRACKING_ADDRESS"  # command lines and files have the address without user info
USER, PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"


def for_stages(uri: str | None) -> dict[str, str]:
    """The variable by which stages on this machine learn the whole address, where it holds a secret."""
    return {} if uri is None or without_password(uri) == uri else {ADDRESS_VARIABLE: uri}


def whole(uri: str, environ: Mapping[str, str] = os.environ) -> str:
    """The address with the user info that whoever started this process has handed on."""
    given = environ.get(ADDRESS_VARIABLE, "")
    return given if given and without_password(given) == uri else uri


def check_public(uri: str | None) -> None:
    """An address that a cluster shows to everyone in the parameters of its runs holds no secret."""
    if uri is not None and without_password(uri) != uri:
        raise InputError(
            f"tracking URI {without_password(uri)!r} is given with user info, which a cluster would show; "
            f"expected {USER} and {PASSWORD} in the secret unio4-mlflow"
        )


def signed_in(uri: str, environ: MutableMapping[str, str] = os.environ) -> str:
    """The address without user info, which goes to MLflow's own variables: its errors quote the address."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or parts.username is None:
        return uri
    environ[USER], environ[PASSWORD] = unquote(parts.username), unquote(parts.password or "")
    return without_password(uri)


def hidden(text: str, uri: str | None) -> str:
    """A text of others without the password of an address."""
    secret = urlsplit(uri).password if uri is not None else None
    for word in {secret, unquote(secret)} if secret else ():
        text = text.replace(word, "***")
    return text
