"""What a dataset's source held: files of this machine can change while their names stay."""

from unio4_lib.files import digest_of_files, local_path
from unio4_lib.sources.given_policy import policy_folder
from unio4_lib.sources.remote import remote, remote_digest


def source_digest(dataset: str) -> str | None:
    """Digest of what is behind a source; None where nothing is, or nothing that can change."""
    from unio4_lib.sources.grammar import parse_source

    if (elsewhere := remote(dataset)) is not None:
        return remote_digest(elsewhere)
    source = parse_source(dataset)
    if source.scheme in ("d4rl", "transitions"):
        place = local_path(source.place)
    elif source.scheme == "minari":
        from unio4_lib.sources.minari_source import datasets_root

        place = datasets_root() / source.place
    elif source.scheme == "collect" and "policy" in source.options:
        place = policy_folder(source.options["policy"])
    else:
        return None
    files = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
    if not files:
        return None
    return digest_of_files(place, files)
