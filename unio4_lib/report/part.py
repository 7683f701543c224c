"""What unio4 writes and reads again, typed: files of other releases are read as far as they go."""

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from unio4_lib.errors import InputError


class Part(BaseModel):
    """A part of a file; what newer versions may add is passed over."""

    model_config = ConfigDict(extra="ignore", strict=True, populate_by_name=True)

    def to_json(self) -> dict[str, Any]:
        """What was told, and nothing that was not."""
        return self.model_dump(mode="json", exclude_unset=True, by_alias=True)


P = TypeVar("P", bound=Part)


def read_part(kind: type[P], values: Any, where: str, what: str) -> P:
    """A part from JSON; what is none is one line."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        path = ".".join(map(str, fault["loc"])) or "it"
        raise InputError(
            f"{where}: {path}: {fault['msg'].lower()}; expected {what} written by unio4"
        ) from error
