"""The report of one run: a single file that answers without a server, a network or a program."""

import base64
from pathlib import Path

from unio4_lib.files import write_atomically
from unio4_lib.report.cost_sections import reproduce_section, time_section
from unio4_lib.report.data_sections import data_section
from unio4_lib.report.markup import Markup, el
from unio4_lib.report.page import page, section
from unio4_lib.report.record import RunRecord
from unio4_lib.report.result_sections import header, result_section
from unio4_lib.report.view import View

REPORT = "report.html"


def render_report(record: RunRecord, view: View, command: str, film: bytes | None = None) -> str:
    """The whole page; the command gives the same run again, the film is a GIF."""
    sections = [
        ("result", "Result", result_section(record, view.checks)),
        *([("film", "Film", _film_section(film))] if film is not None else []),
        ("data", "Data", data_section(record)),
        *((key, title, draw(record)) for key, title, draw in view.panels),
        ("time", "Time", time_section(record, view)),
        ("reproduce", "Do it again", reproduce_section(record, command)),
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


def write_report(record: RunRecord, path: Path, view: View, command: str, film: bytes | None = None) -> None:
    """Write the report of a run; it appears whole or not at all."""
    write_atomically(path, render_report(record, view, command, film).encode("utf-8"))
