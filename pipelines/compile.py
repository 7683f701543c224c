"""Compile the pipelines, and write the READMEs of their components; see ``--help``."""

import argparse
from pathlib import Path

from kfp import compiler

from pipelines.leaderboard import build_leaderboard
from pipelines.readme import write_all
from pipelines.settings import PipelineSettings
from pipelines.sweep import build_sweep
from pipelines.unio4 import build_offpolicy, build_tournament, build_unio4

COMPILED = Path(__file__).parent / "compiled"
PIPELINES = {
    "unio4": build_unio4,
    "offpolicy": build_offpolicy,
    "tournament": build_tournament,
    "sweep": build_sweep,
    "leaderboard": build_leaderboard,
}


def compile_all(settings: PipelineSettings, folder: Path) -> None:
    """Write one YAML file for each pipeline."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, build in PIPELINES.items():
        compiler.Compiler().compile(build(settings), str(folder / f"{name}.yaml"))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Compile the pipelines of unio4.")
    parser.add_argument("--settings", type=Path, help="YAML of images, resources, placement and secrets.")
    parser.add_argument("--output", type=Path, default=COMPILED, help="Folder of the compiled pipelines.")
    chosen = parser.parse_args()
    settings = PipelineSettings.load(chosen.settings) if chosen.settings else PipelineSettings()
    compile_all(settings, chosen.output)
    if chosen.output == COMPILED:
        write_all()


if __name__ == "__main__":
    main()
