"""Fuzzed: what runs leave behind and read again."""

import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

import mutators as m
import numpy as np
from given_targets import DATASET
from target import Target

from unio4_lib.errors import InputError
from unio4_lib.methods.configs import resolve_config
from unio4_lib.settings.pages import config_yaml


def artifacts(folder: Path) -> Target:
    from made_artifacts import describe, make_folder

    from unio4_lib.artifacts.store import FolderStore
    from unio4_lib.stages.housekeeping import collect, find_artifact

    made = make_folder(folder / "made")
    ref = FolderStore(folder / "root").publish(made, describe(made))
    FolderStore(folder / "root").put_bytes(
        "fingerprints/" + "a" * 64, json.dumps({"ref": ref.model_dump()}).encode()
    )

    def attempt(random: Random, work: Path) -> object:
        from unio4_lib.stages.fingerprint import read_entry

        root = work / "root"
        shutil.copytree(folder / "root", root)
        if random.random() < 0.5:
            _edit_manifest(random, root / "artifacts" / ref.digest / "manifest.json")
        else:
            m.damage_folder(random, root, m.EDITS)
        store = FolderStore(root)
        for use in (
            lambda: store.fetch(ref.digest, work / "fetched"),
            lambda: store.verify(ref.digest),
            lambda: read_entry(store, "a" * 64),
            lambda: find_artifact(store.uri, store.manifests()[0], ref.digest[:8]),
        ):
            try:
                use()
            except InputError:
                continue
        return collect(store, 0.0, runs=[work], work=work / "work", dry_run=random.random() < 0.5)

    return Target("artifacts", attempt)


def _edit_manifest(random: Random, path: Path) -> None:
    """A manifest that fits its own checksums, as an author who means harm would write it."""
    from unio4_lib.artifacts.manifest import _sha256, canonical_json

    values = json.loads(path.read_bytes())
    for name in ("checksum", "digest"):
        values.pop(name)
    changed = m.damaged_json(random, values)
    try:
        identity = {k: v for k, v in changed.items() if k not in ("created", "library_version", "metrics")}
        changed["digest"] = _sha256(canonical_json(identity))
        changed["checksum"] = _sha256(canonical_json(changed))
        path.write_bytes(canonical_json(changed))
    except (AttributeError, TypeError, ValueError, RecursionError):
        path.write_bytes(m.json_bytes(changed))


def references(folder: Path) -> Target:
    from made_artifacts import describe, make_folder

    from unio4_lib.artifacts.ref import ArtifactRef
    from unio4_lib.artifacts.store import FolderStore
    from unio4_lib.stages.context import StageContext

    made = make_folder(folder / "made")
    ref = FolderStore(folder / "root").publish(made, describe(made))

    def attempt(random: Random, work: Path) -> object:
        ref.save(work / "ref.json")
        if random.random() < 0.7:
            m.edit_json(random, work / "ref.json")
        else:
            m.damage_folder(random, work, m.EDITS)
        found = ArtifactRef.load(work / "ref.json")
        if found.root.startswith("s3://"):
            return found
        with StageContext(work / "root", cache=work / "cache") as context:
            return context.hold(found)

    return Target("references", attempt)


def states(folder: Path) -> Target:
    import torch

    from unio4_lib.files import frame_header, unframe
    from unio4_lib.learning.checkpoint import Checkpointer, load_state, save_state

    state = {
        "a": torch.zeros(3),
        "b": [1, 2.5, None, "x", (1, 2)],
        "c": {1: np.arange(4), "nan": float("nan")},
    }
    save_state(folder / "state", {"sequence": 3, "state": state})
    payload = unframe((folder / "state").read_bytes(), "state")
    end = 8 + int.from_bytes(payload[:8], "little")

    def attempt(random: Random, work: Path) -> object:
        path = work / "state-0.ckpt"
        shutil.copyfile(folder / "state", path)
        if random.random() < 0.6:
            changed = m.damaged_bytes(random, payload)
            if random.random() < 0.6:
                text = m.json_bytes(m.damaged_json(random, json.loads(payload[8:end])))
                changed = len(text).to_bytes(8, "little") + text + payload[end:]
            path.write_bytes(frame_header(changed) + changed)
        else:
            m.damage_folder(random, work, m.EDITS)
        return Checkpointer(0.0, work).load() if random.random() < 0.5 else load_state(path)

    return Target("states", attempt)


def policies(folder: Path) -> Target:
    from unio4_lib.nets.files import save_policy
    from unio4_lib.nets.kinds import KINDS, build_policy
    from unio4_lib.nets.policy import PolicySpec

    for kind in KINDS:
        policy = build_policy(PolicySpec(2, 4, 1, (8,), kind=kind))
        save_policy(policy, folder / kind, env_id="InvertedPendulum-v5", env_kwargs={}, acts="mean")

    def attempt(random: Random, work: Path) -> object:
        shutil.copytree(folder / random.choice(list(KINDS)), work / "policy")
        if random.random() < 0.3:
            m.edit_header(random, work / "policy/policy.safetensors")
        else:
            m.damage_folder(random, work / "policy", m.EDITS)
        return _use_policy(work / "policy")

    return Target("policies", attempt)


def _use_policy(folder: Path) -> object:
    from unio4_lib.nets.files import load_policy
    from unio4_lib.runs.score_policy import _task, policy_folder

    with policy_folder(str(folder)) as place:
        policy, facts = load_policy(place)
    _task(facts, "policy")
    return policy.act(np.zeros((2, policy.spec.observation_dim)))


def spools(folder: Path) -> Target:
    from unio4_lib.tracking.spool import Outbox
    from unio4_lib.tracking.spool import Target as Place

    Place("http://host", "e", "r", "k").save(folder / "spool")
    for name in ("run", "stage"):
        outbox = Outbox(folder / "spool", name)
        outbox.append("begin", stage=None, fingerprint="f")
        outbox.append("metrics", values={"a": 1.0}, step=3)
        outbox.close()
        (folder / "spool" / f"{name}.sent").write_text("10")

    def attempt(random: Random, work: Path) -> object:
        from unio4_lib.tracking import spool

        shutil.copytree(folder / "spool", work / "spool")
        m.damage_folder(random, work / "spool", m.EDITS)
        found = [spool.count_waiting(place) for place in spool.spools_below(work)]
        spool.end_open_outboxes(work / "spool")
        return found, spool.Target.load(work / "spool")

    return Target("spools", attempt)


def reports(folder: Path) -> Target:
    from made_records import make_run

    from unio4_lib.report.facts import Log

    record = make_run()
    parts: dict[str, Any] = {
        "summary.json": {**record.summary.to_json(), "seconds": 60.0},
        "metrics.json": {name: Log(entries=stage.log).to_json() for name, stage in record.stages.items()},
        "facts.json": {name: stage.told for name, stage in record.stages.items()},
        "decisions.json": [entry.to_json() for entry in record.decisions],
        "curve.json": record.curve,
    }
    (folder / "run").mkdir()
    for name, values in parts.items():
        (folder / "run" / name).write_text(json.dumps(values))
    config = resolve_config("quick", dataset=DATASET).config
    (folder / "run/config.yaml").write_text(config_yaml(config))

    def attempt(random: Random, work: Path) -> object:
        from unio4_lib.cli.report import make_report

        for name in ("run", "other"):
            shutil.copytree(folder / "run", work / name)
        m.damage_folder(random, work / "run", m.EDITS)
        runs = [work / "run", work / "other"] if random.random() < 0.3 else [work / "run"]
        return make_report(runs, work / "page.html", show=False, video=False, frames=2, size=64)

    return Target("reports", attempt)
