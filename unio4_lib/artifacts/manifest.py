"""What an artifact is: a closed description of every file and of where they came from."""

import hashlib
import json
import stat
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from unio4_lib import __version__
from unio4_lib.errors import InputError
from unio4_lib.files import hash_file

MANIFEST_FILE = "manifest.json"
SCHEMA_VERSION = 1
CHECKSUM, DIGEST = "checksum", "digest"
# When, with which release and how well: true of one publication, not part of what was published.
NOT_IDENTITY = frozenset({"created", "library_version", "metrics"})


def check_relative(path: str) -> str:
    """A plain relative path with forward slashes, the same on every system; none climbs out of a folder."""
    parts = path.split("/")
    plain = path.isprintable() and "\\" not in path and ":" not in path
    if not plain or any(part in ("", ".", "..") for part in parts):
        raise InputError(f"{path!r}: not a plain relative path; expected one such as 'policy/weights.json'")
    return path


def _check_file_name(path: str) -> str:
    if path == MANIFEST_FILE:
        raise InputError(f"{path!r}: this name is kept for the manifest; rename the file")
    return check_relative(path)


def _check_time(text: str) -> str:
    datetime.fromisoformat(text)
    return text


Sha256 = Annotated[str, Field(pattern=r"\A[0-9a-f]{64}\z")]
Name = Annotated[str, Field(pattern=r"\A[a-z0-9][a-z0-9._-]*\z")]
FilePath = Annotated[str, AfterValidator(_check_file_name)]
Time = Annotated[str, AfterValidator(_check_time)]


class Closed(BaseModel):
    """Base of what is read from files of others: no unknown key, no conversion, no change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class FileEntry(Closed):
    """One file of an artifact."""

    size: int = Field(ge=0)
    sha256: Sha256


class Manifest(Closed):
    """The description of one artifact; ``digest`` is its identity.

    The identity covers kind, schema, files, stage, config and inputs. It leaves out the time, the release
    and the metrics, so that the same result computed twice is one artifact.
    """

    kind: Name
    schema_version: int = SCHEMA_VERSION
    files: dict[FilePath, FileEntry]
    stage: Name
    config_digest: Sha256
    inputs: dict[Name, Sha256] = {}
    library_version: str = __version__
    created: Time
    metrics: dict[str, float] = {}

    @classmethod
    def of_folder(
        cls,
        folder: Path,
        *,
        kind: str,
        stage: str,
        config_digest: str,
        inputs: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> Self:
        """Describe all files of a folder as they are now."""
        files = {}
        for name in list_files(folder):
            path = folder / name
            files[name] = FileEntry(size=path.stat().st_size, sha256=hash_file(path))
        if not files:
            raise InputError(f"{folder}: no files; an artifact has at least one")
        values: dict[str, Any] = {
            "kind": kind,
            "files": files,
            "stage": stage,
            "config_digest": config_digest,
            "inputs": dict(inputs or {}),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "metrics": {name: float(value) for name, value in (metrics or {}).items()},
        }
        try:
            return cls(**values)
        except ValidationError as error:
            raise InputError(f"{folder}: cannot be an artifact: {_first(error)}") from error

    @property
    def digest(self) -> str:
        """The identity of the artifact: SHA-256 over the canonical JSON of its content."""
        return _sha256(canonical_json(self.model_dump(exclude=set(NOT_IDENTITY))))

    @property
    def total_bytes(self) -> int:
        """Size of all files together."""
        return sum(entry.size for entry in self.files.values())

    def to_bytes(self) -> bytes:
        """The manifest file: canonical, with a checksum over everything, the time included."""
        values = {**self.model_dump(), DIGEST: self.digest}
        return canonical_json({**values, CHECKSUM: _sha256(canonical_json(values))})

    @classmethod
    def from_bytes(cls, data: bytes, place: str, digest: str | None = None) -> Self:
        """Read a manifest file; ``digest`` is the identity that it must have."""
        try:
            values = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{place}: not JSON ({error}); publish or copy the artifact again") from error
        if not isinstance(values, dict):
            raise InputError(f"{place}: not a JSON object; publish or copy the artifact again")
        version = values.get("schema_version")
        if version != SCHEMA_VERSION:
            raise InputError(
                f"{place}: schema version {version!r}, this release reads {SCHEMA_VERSION}; use the release "
                "that wrote it, or compute the artifact again"
            )
        checksum, stated = values.pop(CHECKSUM, None), values.pop(DIGEST, None)
        try:
            manifest = cls.model_validate(values)
            written = manifest.to_bytes()
        except ValidationError as error:
            raise InputError(f"{place}: {_first(error)}; publish or copy the artifact again") from error
        except UnicodeEncodeError as error:  # half a character is JSON, but no text
            raise InputError(
                f"{place}: not text ({error.reason}); publish or copy the artifact again"
            ) from error
        # One text for one meaning: whatever differs from what we would write was changed by someone.
        if written != data or checksum is None or stated is None:
            raise InputError(f"{place}: does not fit its own checksum; publish or copy the artifact again")
        if digest is not None and manifest.digest != digest:
            raise InputError(
                f"{place}: describes artifact {manifest.digest[:16]}, expected {digest[:16]}; copy it again"
            )
        return manifest


def list_files(folder: Path) -> list[str]:
    """Relative paths of all files below a folder, sorted; anything but plain files and folders is refused."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    names = []
    for path in folder.rglob("*"):
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode):
            names.append(PurePosixPath(path.relative_to(folder)).as_posix())
        elif not stat.S_ISDIR(mode):
            raise InputError(f"{path}: a link or device; an artifact has plain files only")
    return sorted(names)


def canonical_json(values: Any) -> bytes:
    """One text for equal values: sorted keys, fixed spacing, finite numbers only."""
    text = json.dumps(values, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}, found {first['input']!r:.80}"
