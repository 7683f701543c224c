"""The report of one run: a single file that answers without a server, a network or a program."""

from pathlib import Path

from unio4_lib.files import write_atomically
from unio4_lib.report.cost_sections import reproduce_section, time_section
from unio4_lib.report.data_sections import data_section
from unio4_lib.report.learning_sections import clones_section, critics_section, models_section
from unio4_lib.report.page import page
from unio4_lib.report.policy_sections import improvement_section, online_section
from unio4_lib.report.record import RunRecord
from unio4_lib.report.result_sections import header, result_section

REPORT = "report.html"


def render_report(record: RunRecord) -> str:
    """The whole page."""
    sections = [
        ("result", "Result", result_section(record)),
        ("data", "Data", data_section(record)),
        ("clones", "Clones", clones_section(record)),
        ("critics", "Critics", critics_section(record)),
        ("models", "Models", models_section(record)),
        ("improvement", "Improvement", improvement_section(record)),
        ("online", "Online", online_section(record)),
        ("time", "Time", time_section(record)),
        ("reproduce", "Do it again", reproduce_section(record)),
    ]
    return page(f"{record.env_id} · {record.name}", header(record), sections)


def write_report(record: RunRecord, path: Path) -> None:
    """Write the report of a run; it appears whole or not at all."""
    write_atomically(path, render_report(record).encode("utf-8"))
