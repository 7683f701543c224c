"""A policy on this machine whose actions are to be recorded."""

from pathlib import Path

from unio4_lib.errors import InputError
from unio4_lib.files import digest_of_files, local_path

DESCRIPTION = "policy.json"
OF_A_RUN = ("policies/online", "policies/offline")  # the last that it made comes first


def policy_folder(place: str) -> Path:
    """The folder of a policy, or of the last policy of a run."""
    folder = local_path(place)
    found = next((one for one in (folder, of_run(folder)) if (one / DESCRIPTION).is_file()), None)
    if found is not None:
        return found
    raise InputError(
        f"policy={place}: no policy there; expected the folder of a finished run, or one with {DESCRIPTION}"
    )


def of_run(folder: Path) -> Path:
    """Where a run keeps the last policy that it made; the folder itself where it is none of a run."""
    return next((folder / name for name in OF_A_RUN if (folder / name).is_dir()), folder)


def policy_digest(place: str) -> str:
    """SHA-256 of what it holds."""
    folder = policy_folder(place)
    return digest_of_files(folder, sorted(path for path in folder.rglob("*") if path.is_file()))
