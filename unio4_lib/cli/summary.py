"""What a finished run or evaluation looks like on a terminal."""

from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Column, Table

from unio4_lib.methods.configs import method_named
from unio4_lib.report.phases import find_dip
from unio4_lib.report.summary import Gate, Summary, read_summary
from unio4_lib.settings.keys import flat_settings
from unio4_lib.settings.model import RunConfig

PLAIN_WIDTH = 100  # of tables when the output is no terminal


def print_summary(values: dict[str, Any], config: RunConfig, output: Path = Path("runs")) -> None:
    """Stage, time, return and normalized score; then what these are, the report, gate, dip and folder."""
    summary = read_summary(values, "summary")
    console = _console()
    console.print(summary_table(summary))
    for line in _closing_lines(summary, config, output):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def summary_table(summary: Summary) -> Table:
    """One row for each stage; scores stand with the stage that made the policy."""
    table = _table("stage", "seconds")
    method = method_named(summary.model_dump(include={"method"}, exclude_none=True))
    policies = {stage: kind for kind, stage in method.stage_names().items()}
    for stage, costs in summary.stages.items():
        shown = summary.dataset if stage == "prepare-dataset" else summary.scores.get(policies.get(stage, ""))
        note = " (reused)" if costs.reused else ""
        cells = _score_cells(None if shown is None else shown.model_dump())
        table.add_row(stage + note, f"{costs.seconds:.1f}", *cells)
    return table


def _closing_lines(summary: Summary, config: RunConfig, output: Path) -> list[str]:
    lines = []
    if summary.scores:
        clones = " the plain clones (their mean)," if "behavior" in summary.scores else ""
        lines.append(f"returns: of the data,{clones} the offline and the online policy")
    if "run_id" in summary.model_fields_set:
        lines.append(f"report: {output / 'latest' / 'report.html'}")
    if summary.gate is not None:
        lines += _gate_lines(summary.gate)
    if summary.dip is not None:
        lines.append(f"dip:  {summary.dip:.2f} ({_dip_words(summary, config)})")
    if "run_id" in summary.model_fields_set:
        lines.append(f"run:  {output / summary.run_id} ({output / 'latest'})")
        lines.append(f"next: unio4 evaluate {output / 'latest'} --episodes 100")
    return lines


def _dip_words(summary: Summary, config: RunConfig) -> str:
    """What the dip is, which is no worst of anything where there was one look."""
    settings = flat_settings(config.model_dump(mode="json"))
    total, warm = settings["finetune.env_steps"], settings["finetune.warmup_steps"]
    fall = find_dip(summary.online_curve or [], total, warm)
    if fall is not None and fall.looks == 1:
        return "return at the one early look of fine-tuning / return before it; one look can miss a drop"
    return "worst return in the first tenth of fine-tuning / return before it"


def _gate_lines(gate: Gate) -> list[str]:
    """What was begun with, what was let pass, how the delivered policy acts, and why nothing was, if so."""
    lines = [f"gate: {gate.accepted} of {gate.checks} candidates accepted"]
    if gate.first is not None:
        acting = "its mean action" if gate.acts == "mean" else "sampled actions"
        choice = f"the judge's choice of {len(gate.portfolio)}"
        lines[0] += f"; begun as {gate.first.name}, {choice}; delivered with {acting}"
    if gate.trust is not None and not gate.trusted:
        lines.append(
            f"      the models may not judge: in them clones ({gate.trust.weighting}) return "
            f"{gate.trust.modeled:.5g}, the data recorded {gate.trust.recorded:.5g}"
        )
    if gate.fqe is not None:
        found = gate.fqe.rank_correlation
        ranks = "" if found is None else f", rank correlation {found:.2f}"
        word = "agrees with" if gate.fqe.agrees else "puts a plain clone above"
        lines.append(f"      fitted Q evaluation {word} the models' choice{ranks}; it decides nothing")
    return lines


def print_scores(scores: dict[str, Any]) -> None:
    """One score: return, standard error, normalized, episodes."""
    table = _table("episodes")
    table.add_row(str(scores["episodes"]), *_score_cells(scores))
    _console().print(table)


def _table(*leading: str) -> Table:
    names = [*leading, "return", "± error", "normalized"]
    numbers = [Column(name, justify="right") for name in names[1:]]
    return Table(names[0], *numbers, box=box.ROUNDED, header_style="bold")


def _score_cells(scores: dict[str, Any] | None) -> tuple[str, str, str]:
    mean = None if scores is None else scores["mean_return"]
    if scores is None or mean is None:  # data may tell none
        return "", "", ""
    stderr, normalized = scores.get("stderr"), scores.get("normalized")
    return (
        f"{mean:.1f}",
        "" if stderr is None else f"{stderr:.1f}",
        "" if normalized is None else f"{normalized:.1f}",
    )


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=PLAIN_WIDTH)
