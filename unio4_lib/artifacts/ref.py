"""What stages pass to each other: a small JSON file that says which artifact is meant."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError

from unio4_lib.artifacts.manifest import Closed, Manifest, Name, Sha256, canonical_json
from unio4_lib.errors import InputError
from unio4_lib.files import read_plain, write_atomically

ARTIFACTS = "artifacts"  # folder or key prefix of all artifacts below a root


@dataclass(frozen=True)
class StoredBytes:
    """A small thing of a store that is no artifact."""

    key: str
    size: int
    modified: float  # seconds since 1970


class ArtifactRef(Closed):
    """A reference to one published artifact."""

    kind: Name
    uri: str = Field(min_length=1)  # <root>/artifacts/<digest>
    digest: Sha256
    bytes: int = Field(ge=0)
    producer: Name  # the stage

    @classmethod
    def to_manifest(cls, manifest: Manifest, root: str) -> Self:
        """The reference to an artifact of the store at ``root``."""
        return cls(
            kind=manifest.kind,
            uri=f"{root}/{ARTIFACTS}/{manifest.digest}",
            digest=manifest.digest,
            bytes=manifest.total_bytes,
            producer=manifest.stage,
        )

    @property
    def root(self) -> str:
        """The store that has it."""
        root, folder, digest = self.uri.rpartition(f"/{ARTIFACTS}/")
        if not folder or digest != self.digest:
            raise InputError(
                f"{self.uri}: not a place of {self.digest[:16]}; expected <root>/{ARTIFACTS}/<digest>"
            )
        return root

    def save(self, path: Path) -> None:
        """Write the reference; it appears whole or not at all."""
        write_atomically(path, canonical_json(self.model_dump()))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a reference."""
        try:
            return cls.model_validate_json(read_plain(path))
        except OSError as error:
            raise InputError(
                f"{path}: cannot be read ({error.strerror}); expected a reference to an artifact"
            ) from error
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "file"
            raise InputError(f"{path}: not a reference to an artifact ({place}: {first['msg']})") from error

    def check(self, manifest: Manifest, place: str) -> None:
        """Compare with the manifest that was found under the digest."""
        found = {"kind": manifest.kind, "bytes": manifest.total_bytes, "producer": manifest.stage}
        for name, value in found.items():
            expected = getattr(self, name)
            if value != expected:
                raise InputError(f"{place}: {name} is {value!r}, the reference says {expected!r}")
