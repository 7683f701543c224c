"""``unio4 artifacts``: what an artifact root holds, whether it is whole, and what may go."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from unio4_lib.artifacts.manifest import Manifest
from unio4_lib.artifacts.ref import ArtifactRef
from unio4_lib.artifacts.s3 import StoreError
from unio4_lib.artifacts.store import FolderStore, open_store
from unio4_lib.cli.app import App
from unio4_lib.errors import InputError
from unio4_lib.stages.context import WORK, default_cache
from unio4_lib.stages.housekeeping import collect, find_artifact

app = App(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="List, show, verify and collect artifacts.",
)

DAY = 24 * 3600.0
SHORT = 16  # digits of a digest that are shown
PLAIN_WIDTH = 100  # of tables when the output is no terminal
EXIT_DAMAGED = 1

Root = Annotated[str, typer.Option("--artifact-root", help="Folder or s3://bucket/prefix.")]
Name = Annotated[str, typer.Argument(metavar="DIGEST", help="A digest, or the beginning of one.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output and nothing else there.")]
DEFAULT_ROOT = "runs/artifacts"


@app.command("list")
def list_command(root: Root = DEFAULT_ROOT, as_json: AsJson = False) -> None:
    """All artifacts, the newest first."""
    store = open_store(root)
    manifests, damaged = store.manifests()
    found = sorted(manifests.items(), key=lambda pair: pair[1].created, reverse=True)
    if as_json:
        whole: list[dict[str, object]] = [_facts(manifest, store.uri) for _, manifest in found]
        whole += [{"digest": digest, "damaged": reason} for digest, reason in damaged.items()]
        typer.echo(json.dumps(whole, indent=2))
        return
    for digest, reason in damaged.items():
        typer.echo(_damaged_line(digest, "?", reason))
    if not found:
        typer.echo(f"No artifact in {store.uri}.")
        return
    table = Table(
        Column("digest", no_wrap=True), "kind", "stage", "created", Column("bytes", justify="right")
    )
    for digest, said in found:
        table.add_row(digest[:SHORT], said.kind, said.stage, said.created, f"{said.total_bytes:,}")
    console = Console()
    (console if console.is_terminal else Console(width=PLAIN_WIDTH)).print(table)


@app.command("show")
def show_command(name: Name, root: Root = DEFAULT_ROOT) -> None:
    """One artifact: its files, what it was made from, and what it cost."""
    store = open_store(root)
    manifests, damaged = store.manifests()
    manifest = store.manifest(find_artifact(store.uri, [*manifests, *damaged], name))
    files = {path: entry.size for path, entry in sorted(manifest.files.items())}
    facts = {
        **_facts(manifest, store.uri),
        "inputs": manifest.inputs,
        "metrics": manifest.metrics,
        "files": files,
    }
    typer.echo(json.dumps(facts, indent=2))


@app.command("verify")
def verify_command(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="DIGEST", help="Some artifacts; else all.")
    ] = None,
    root: Root = DEFAULT_ROOT,
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove what is damaged; the next run computes it again.")
    ] = False,
) -> None:
    """Read every byte and compare with the digests; exit code 1 if anything is damaged."""
    store = open_store(root)
    if isinstance(store, FolderStore) and not store.root.is_dir():
        raise InputError(f"{store.root}: no such folder; expected an artifact root (--artifact-root)")
    manifests, broken = store.manifests()
    kinds = dict.fromkeys(broken, "?") | {digest: said.kind for digest, said in manifests.items()}
    digests = [find_artifact(store.uri, kinds, name) for name in names] if names else list(kinds)
    damaged = 0
    for digest in digests:
        try:
            store.verify(digest)
            typer.echo(f"ok       {digest[:SHORT]} {kinds[digest]}")
        except StoreError:
            raise
        except InputError as error:
            damaged += 1
            typer.echo(_damaged_line(digest, kinds[digest], str(error)))
            if remove:
                store.delete(digest)
    typer.echo(f"{len(digests) - damaged} of {len(digests)} artifacts are whole")
    if damaged:
        raise typer.Exit(EXIT_DAMAGED)


@app.command("gc")
def gc_command(
    root: Root = DEFAULT_ROOT,
    days: Annotated[float, typer.Option("--days", min=0, help="Nothing younger is touched.")] = 30.0,
    runs: Annotated[
        list[Path] | None, typer.Option("--runs", help="Folder of runs to keep all of; repeatable.")
    ] = None,
    cache: Annotated[Path | None, typer.Option("--cache", help="Local folder for copies.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove; else only say what would go.")] = False,
) -> None:
    """Remove what no recent fingerprint and no run leads to."""
    work = (cache if cache is not None else default_cache()) / WORK
    store = open_store(root)
    found = collect(store, days * DAY, runs=runs or [Path("runs")], work=work, dry_run=not remove)
    for digest, reason in found.damaged.items():
        typer.echo(_damaged_line(digest, "?", f"{reason}; unio4 artifacts verify --remove removes it"))
    for digest in found.artifacts:
        typer.echo(f"artifact   {digest[: SHORT * 4]}")
    for item in found.small:
        typer.echo(f"{item.key}")
    for folder in found.work:
        typer.echo(f"{folder}")
    verb = "removed" if remove else "would be removed (nothing was: --remove does it)"
    typer.echo(f"{found.kept} artifacts stay; {len(found.artifacts)} and {found.bytes:,} bytes {verb}")


def _damaged_line(digest: str, kind: str, reason: str) -> str:
    return f"damaged  {digest[:SHORT]} {kind}: {reason}"


def _facts(manifest: Manifest, root: str) -> dict[str, object]:
    ref = ArtifactRef.to_manifest(manifest, root)
    return {**ref.model_dump(), "created": manifest.created, "library_version": manifest.library_version}
