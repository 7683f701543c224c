"""What an artifact's description says, and what it refuses to say."""

import json
from pathlib import Path

import pytest
from made_artifacts import CONFIG, describe, make_folder

from unio4_lib.artifacts.manifest import Manifest, canonical_json, check_relative
from unio4_lib.artifacts.ref import ArtifactRef
from unio4_lib.errors import InputError


def test_identity_is_content_and_origin_without_time_and_metrics(folder: Path, manifest: Manifest) -> None:
    later = manifest.model_copy(
        update={"created": "2031-01-01T00:00:00+00:00", "metrics": {}, "library_version": "9"}
    )
    assert later.digest == manifest.digest
    assert later.to_bytes() != manifest.to_bytes()
    others = [
        describe(folder, kind="critics"),
        describe(folder, stage="clone-behavior"),
        describe(folder, config_digest="d" * 64),
        describe(folder, inputs={"dataset": "e" * 64}),
        describe(make_folder(folder.parent / "other", seed=1)),
    ]
    assert len({manifest.digest, *(other.digest for other in others)}) == 6


def test_a_manifest_comes_back(folder: Path) -> None:
    manifest = describe(folder, inputs={"dataset": "e" * 64})
    assert Manifest.from_bytes(manifest.to_bytes(), "here", manifest.digest) == manifest
    assert manifest.total_bytes == 3200
    assert list(manifest.files) == ["empty.txt", "facts.json", "nets/weights.safetensors"]


def test_every_flipped_bit_of_a_manifest_is_seen(manifest: Manifest) -> None:
    data = manifest.to_bytes()
    for position in range(len(data)):
        for bit in (1, 2, 4, 32, 128):
            changed = bytearray(data)
            changed[position] ^= bit
            with pytest.raises(InputError, match=r"^here/manifest.json: "):
                Manifest.from_bytes(bytes(changed), "here/manifest.json")
    for end in range(0, len(data), 7):
        with pytest.raises(InputError, match=r"^here/manifest.json: "):
            Manifest.from_bytes(data[:end], "here/manifest.json")


def test_what_a_reader_does_not_know_is_refused(manifest: Manifest) -> None:
    values = json.loads(manifest.to_bytes())
    cases = {
        "schema version 2, this release reads 1": {**values, "schema_version": 2},
        "schema version None": {k: v for k, v in values.items() if k != "schema_version"},
        "more: Extra inputs": {**values, "more": 1},
        "not a JSON object": [values],
        "own checksum": {k: v for k, v in values.items() if k != "checksum"},
    }
    for text, changed in cases.items():
        with pytest.raises(InputError, match=text):
            Manifest.from_bytes(canonical_json(changed), "here")
    with pytest.raises(InputError, match="expected ffffffffffffffff"):
        Manifest.from_bytes(manifest.to_bytes(), "here", "f" * 64)
    with pytest.raises(InputError, match="not JSON"):
        Manifest.from_bytes(b"[" * 100_000, "here")


@pytest.mark.parametrize("name", ["../up", "/root", "a//b", "a/./b", "", "a\\b", "a\nb", "c:d", "a/"])
def test_no_path_leaves_its_folder(name: str, manifest: Manifest) -> None:
    with pytest.raises(InputError, match="not a plain relative path"):
        check_relative(name)
    values = manifest.model_dump()
    values["files"][name] = {"size": 1, "sha256": CONFIG}
    with pytest.raises(ValueError, match="not a plain relative path"):
        Manifest.model_validate(values)


def test_folders_that_cannot_be_artifacts(folder: Path) -> None:
    with pytest.raises(InputError, match=r"stage: .* found 'Big Words'"):
        describe(folder, stage="Big Words")
    with pytest.raises(InputError, match=r"metrics.return: .*finite"):
        describe(folder, metrics={"return": float("nan")})
    with pytest.raises(InputError, match="no such folder"):
        describe(folder / "none")
    (folder / "bare").mkdir()
    with pytest.raises(InputError, match="no files"):
        describe(folder / "bare")
    (folder / "link").symlink_to(folder / "facts.json")
    with pytest.raises(InputError, match="link: a link or device"):
        describe(folder)
    (folder / "link").rename(folder.parent / "link")
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="kept for the manifest"):
        describe(folder)


def test_a_reference_comes_back_and_is_closed(tmp_path: Path, manifest: Manifest) -> None:
    ref = ArtifactRef.to_manifest(manifest, "s3://bucket/a")
    path = tmp_path / "refs" / "policy.json"
    ref.save(path)
    assert ArtifactRef.load(path) == ref
    assert (ref.root, ref.bytes, ref.producer) == ("s3://bucket/a", 3200, "improve-policy")
    values = json.loads(path.read_text())
    for changed in ({**values, "more": 1}, {**values, "digest": "short"}, {**values, "bytes": "3200"}, []):
        path.write_text(json.dumps(changed))
        with pytest.raises(InputError, match=r"policy\.json: not a reference"):
            ArtifactRef.load(path)
    with pytest.raises(InputError, match="cannot be read"):
        ArtifactRef.load(tmp_path / "none.json")
    with pytest.raises(InputError, match="not a place of"):
        _ = ref.model_copy(update={"uri": "s3://bucket/a"}).root
