"""The report of a run, as its method shows it."""

from pathlib import Path

from unio4_lib.methods.method import Method
from unio4_lib.methods.reproduce import reproduce_command
from unio4_lib.report.html import write_report
from unio4_lib.report.record import RunRecord


def write_page(record: RunRecord, path: Path, method: Method, film: bytes | None = None) -> None:
    """Write the report; it appears whole or not at all."""
    write_report(record, path, method.view(), reproduce_command(method, record.config), film)
