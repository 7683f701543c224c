"""What the members of a sweep came to, read from the store that they left it in."""

import json

from unio4_lib.errors import InputError
from unio4_lib.methods.registry import DEFAULT
from unio4_lib.report.leaderboard import Entry
from unio4_lib.report.part import read_part
from unio4_lib.report.record import Course, make_record
from unio4_lib.report.summary import read_summary
from unio4_lib.stages.context import StageContext
from unio4_lib.stages.step import STAGE_FACTS_FILE, SUMMARY_FILE
from unio4_lib.stages.sweep import Member, Result, result_of, results_in


def entry_of(member: Member, context: StageContext) -> Entry:
    """One member, by its name."""
    return _entry(member, result_of(context.store, member), context)


def finished(sweep: str, context: StageContext) -> list[Entry]:
    """All members of a sweep that came to their end."""
    found = [one for one in results_in(context.store, sweep) if one.report is not None]
    if not found:
        raise InputError(
            f"sweep {sweep}: nothing of it is finished in {context.store.uri}; expected the --name of a "
            "sweep and the --output or --artifact-root that it had"
        )
    entries = []
    for one in found:
        told = {"method": DEFAULT, **one.config}
        entries.append(_entry(Member(sweep, told["dataset"], told["seed"], told["method"]), one, context))
    return entries


def _entry(member: Member, found: Result, context: StageContext) -> Entry:
    if found.report is None:
        return Entry(member.dataset, member.seed, member.method, failure=found.failure)
    folder = context.hold(found.report)
    summary = read_summary(json.loads((folder / SUMMARY_FILE).read_bytes()), str(folder / SUMMARY_FILE))
    record = make_record(
        summary.model_copy(update={"run_id": member.name}),
        found.config,
        logs={},
        facts=json.loads((folder / STAGE_FACTS_FILE).read_bytes()),
        places=("", str(folder / STAGE_FACTS_FILE)),
        course=read_part(Course, {"curve": summary.online_curve or []}, str(folder / SUMMARY_FILE), "a file"),
    )
    return Entry(member.dataset, member.seed, member.method, record)
