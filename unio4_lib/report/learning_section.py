"""Training curves of whatever a stage has logged."""

from typing import Any

from unio4_lib import words
from unio4_lib.report.curves import curves
from unio4_lib.report.markup import Markup
from unio4_lib.report.page import figure, grid, quiet, section
from unio4_lib.report.record import RunRecord


def learning_section(record: RunRecord) -> Markup:
    """One small figure for each metric of the stages before the environment."""
    names = [name for name in record.stages if name != "finetune-online"]
    stage = next((record.stage(name) for name in names if record.stage(name).log), record.stage(""))
    metrics = dict.fromkeys(name for entry in stage.log for name in entry.values)
    figures: list[Any] = []
    for name in metrics:
        series = stage.series(name)
        if "" in series and len(series[""]) > 1:
            label = name.rpartition("/")[2].replace("_", " ")
            title = f"{label.capitalize()}: {words.number(series[''][-1][1])} at the end"
            figures.append(figure(title, curves({"": series[""]}, "c-offline", label, label), ""))
    content = grid(*figures) if figures else quiet("This run kept no training curves.")
    return section("learning", "Offline learning", content)
