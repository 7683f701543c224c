"""The report of one run: a single file that answers without a server, a network or a program."""

import base64
from pathlib import Path

from unio4_lib.files import write_atomically
from unio4_lib.report.cost_sections import reproduce_section, time_section
from unio4_lib.report.data_sections import data_section
from unio4_lib.report.learning_sections import clones_section, critics_section, models_section
from unio4_lib.report.markup import Markup, el
from unio4_lib.report.page import page, section
from unio4_lib.report.policy_sections import improvement_section, online_section
from unio4_lib.report.record import RunRecord
from unio4_lib.report.result_sections import header, result_section

REPORT = "report.html"


def render_report(record: RunRecord, film: bytes | None = None) -> str:
    """The whole page; the film is a GIF."""
    sections = [
        ("result", "Result", result_section(record)),
        *([("film", "Film", _film_section(film))] if film is not None else []),
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


def _film_section(film: bytes) -> Markup:
    picture = el(
        "img",
        class_="film",
        alt="A clone, the offline policy and the online policy, from the same start",
        src=f"data:image/gif;base64,{base64.b64encode(film).decode()}",
    )
    note = "One episode each, mean actions, from the same start. One episode proves nothing; it shows how."
    return section("film", "A look at the policies", picture, el("p", note, class_="how"))


def write_report(record: RunRecord, path: Path, film: bytes | None = None) -> None:
    """Write the report of a run; it appears whole or not at all."""
    write_atomically(path, render_report(record, film).encode("utf-8"))
