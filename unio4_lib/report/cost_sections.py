"""Where time went, and how to do it again."""

import shlex
from typing import Any

from unio4_lib import words
from unio4_lib.report.markup import Markup, el
from unio4_lib.report.page import quiet, section, table
from unio4_lib.report.record import RunRecord
from unio4_lib.report.summary import Place
from unio4_lib.report.view import View
from unio4_lib.settings.keys import flat_settings

# What a run knows of where it was, and the words for it.
PLACES = {
    "artifact_root": "artifact root",
    "tracking": "MLflow",
    "logs": "logs of tasks",
    "host": "host",
    "cpu": "processor",
}


def time_section(record: RunRecord, view: View) -> Markup:
    stages = {name: stage for name, stage in record.stages.items() if stage.seconds > 0}
    if not stages:
        return section("time", "Where the time went", quiet("This run recorded no times."))
    longest = max(stage.seconds for stage in stages.values()) or 1.0
    total = sum(stage.seconds for stage in stages.values())
    slowest = max(stages, key=lambda name: stages[name].seconds)
    peak = max(stage.peak_memory_bytes for stage in stages.values())
    sentence = (
        f"The stages took {words.duration(total)} in all, {slowest} the longest "
        f"({words.percent(stages[slowest].seconds / total if total else None)})"
    )
    sentence += f"; at its peak the run held {words.memory(peak)} of memory." if peak > 0 else "."
    rows: list[list[Any]] = []
    for name, stage in stages.items():
        share = f"width:{100 * stage.seconds / longest:.1f}%"
        bar = el("span", class_=f"share c-{view.phases.get(name) or 'soft'}", style=share)
        state = " (reused)" if stage.reused else " (resumed)" if stage.resumed else ""
        time = words.duration(stage.seconds)
        rows.append(
            [name + state, bar, time, _throughput(record, name, view), words.memory(stage.peak_memory_bytes)]
        )
    note = (
        "Stages that need nothing of each other run side by side: the whole run may take less than this sum."
    )
    head = ["Stage", "", "Time", "Throughput", "Peak memory"]
    content = table(head, rows, words_first=2)
    return section("time", "Where the time went", el("p", sentence), content, el("p", note, class_="how"))


def _throughput(record: RunRecord, name: str, view: View) -> str:
    setting, unit = view.amounts.get(name, ("", ""))
    stage = record.stage(name)
    amount = stage.log[-1].step if stage.log else record.setting(setting)
    if not setting or not amount or stage.seconds <= 0 or stage.reused or stage.resumed:
        return ""
    return f"{words.number(amount / stage.seconds)} {unit}/s"


def _evaluate(place: Place) -> list[Markup]:
    """The line that scores the delivered policy once more."""
    if place.folder is None:
        return []
    line = shlex.join(["unio4", "evaluate", place.folder, "--episodes", "100"])
    copy = el("button", "Copy", type="button", data_copies="evaluate", hidden="hidden")
    return [
        el("p", "Score the delivered policy on more episodes:"),
        el("div", el("pre", line, id="evaluate"), copy, class_="command"),
    ]


def reproduce_section(record: RunRecord, command: str) -> Markup:
    summary = record.summary
    facts = [
        ["unio4", summary.unio4_version],
        *([name, version] for name, version in summary.versions.items()),
        ["settings", el("code", summary.config_digest)],
        *(
            [f"artifact of {name}", el("code", stage.digest)]
            for name, stage in record.stages.items()
            if stage.digest
        ),
    ]
    if summary.policy_digest is not None:
        facts.append(["final policy", el("code", summary.policy_digest)])
    place = summary.place or Place()
    facts += [[name, el("code", getattr(place, key))] for key, name in PLACES.items() if getattr(place, key)]
    # As text: a list would be shown without its commas.
    settings = [[name, str(value)] for name, value in flat_settings(record.config).items()]
    return section(
        "reproduce",
        "Do it again",
        el("p", "On the same kind of CPU, the same settings and seed give the same numbers, bit for bit."),
        el(
            "div",
            el("pre", command, id="command"),
            el("button", "Copy", type="button", data_copies="command", hidden="hidden"),
            class_="command",
        ),
        *_evaluate(place),
        table(["Version, digest or place", ""], facts, words_first=2),
        el(
            "details",
            el("summary", f"All {len(settings)} settings"),
            table(["Setting", "Value"], settings, words_first=2),
        ),
    )
