"""The address of MLflow: where it comes from, what may be one, and who sees a password in it."""

import os
import re
from collections.abc import Mapping, MutableMapping
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from unio4_lib.errors import ENCODED, InputError, is_address, without_user_info

SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql")
NO_TRACKING = "none"
SECRET_QUERY = re.compile(r"[?&](password|passwd|pwd|token)=", re.IGNORECASE)
DATABASE = "mlflow.db"  # below the folder of the runs
ADDRESS_VARIABLE = "UNIO4_TRACKING_ADDRESS"  # command lines and files have the address without user info
USER, PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"


def default_uri(output: Path | None, environ: Mapping[str, str] = os.environ) -> str | None:
    """Where numbers go if nobody says: the server of the environment, else a database beside the runs."""
    if chosen := environ.get("MLFLOW_TRACKING_URI"):
        return chosen
    if output is None or find_spec("mlflow") is None:
        return None
    return f"sqlite:///{output.absolute() / DATABASE}"


def check_uri(uri: str) -> str:
    """An address that MLflow understands, and MLflow is there to use it."""
    if not is_address(uri):
        raise InputError(f"tracking URI {without_user_info(uri)!r} is no address; {ENCODED}")
    if SECRET_QUERY.search(uri):
        place = uri.partition("?")[0]
        raise InputError(
            f"tracking URI {without_user_info(place)!r}: a password in its query would be written down; "
            "put it before the host, as in scheme://user:password@host"
        )
    scheme = urlsplit(uri).scheme.partition("+")[0]
    expected = "expected http(s)://HOST:PORT, sqlite:///FILE, postgresql://... or none"
    if scheme not in SCHEMES:
        hint = " (MLflow no longer writes plain folders)" if scheme in ("", "file") else ""
        raise InputError(f"tracking URI {without_password(uri)!r}{hint}: {expected}")
    if scheme in ("http", "https") and not urlsplit(uri).hostname:
        raise InputError(f"tracking URI {without_password(uri)!r} names no host: {expected}")
    if find_spec("mlflow") is None:
        raise InputError("tracking needs MLflow; pip install 'unio4[tracking]', or --tracking none")
    if scheme == "sqlite":
        return f"sqlite:///{sqlite_file(uri).absolute()}"
    return uri


def sqlite_file(uri: str) -> Path:
    """The database file of a sqlite address."""
    path = uri.partition(":///")[2]
    if not path:
        raise InputError(f"tracking URI {uri!r} names no file; expected sqlite:///FILE")
    return Path(path)


def without_password(uri: str) -> str:
    """The address as it may be shown and written down."""
    parts = urlsplit(uri)
    public = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    return urlunsplit(public) if "@" in parts.netloc else uri


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
