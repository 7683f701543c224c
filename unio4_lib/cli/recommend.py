"""``unio4 recommend``: which method to take, by a finished sweep."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from unio4_lib.cli.app import App
from unio4_lib.cli.options import CacheOption, JsonOption, OutputOption, RootOption
from unio4_lib.errors import InputError
from unio4_lib.report.data_facts import dataset_facts
from unio4_lib.report.facts import DatasetFacts
from unio4_lib.report.leaderboard import Entry
from unio4_lib.report.recommend import (
    Choice,
    Features,
    Scores,
    choose,
    describe,
    features,
    nearness,
    sentence,
)
from unio4_lib.runs.local_run import artifact_place
from unio4_lib.runs.sweep_results import finished
from unio4_lib.sources.grammar import load_transitions
from unio4_lib.stages.context import StageContext, default_cache

recommend_app = App(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@recommend_app.command()
def recommend(
    sweep: Annotated[str, typer.Argument(metavar="SWEEP", help="The --name of a sweep.")],
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", help="The data to take a method for; one of the sweep's, or any other."),
    ] = None,
    artifact_root: RootOption = None,
    output: OutputOption = Path("runs"),
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say which method to take, and how sure that is, by the runs of a sweep and what the data is like."""
    with StageContext(artifact_place(artifact_root, output), cache=cache or default_cache()) as context:
        entries = finished(sweep, context)
    scores, known = _scores(entries), _features(entries)
    if dataset is not None and dataset in scores:
        answers = [_answer(dataset, known.get(dataset), {dataset: scores[dataset]}, {dataset: 1.0})]
    elif dataset is not None:
        wanted = features(dataset_facts(dataset, load_transitions(dataset)))
        weights = nearness(wanted, known)
        answers = [_answer(dataset, wanted, {name: scores[name] for name in known}, weights)]
    else:
        answers = [_answer(name, known.get(name), {name: scores[name]}, {name: 1.0}) for name in scores]
        if len(scores) > 1:
            answers.append(_answer("all of them", None, scores, dict.fromkeys(scores, 1.0)))
    print(json.dumps(answers, indent=2) if as_json else "\n\n".join(map(_text, answers)))


def _answer(
    name: str, found: Features | None, scores: Scores, weights: Mapping[str, float]
) -> dict[str, Any]:
    """For one dataset, or for all: what it is like, what counted how much, and the choice."""
    choice: Choice | None = choose(scores, weights)
    if choice is None:
        raise InputError(
            f"{name}: fewer than two methods have runs on {', '.join(scores)}; expected a sweep of several "
            "methods (--method, repeated)"
        )
    return {
        "dataset": name,
        "features": None if found is None else asdict(found),
        "weights": dict(weights),
        "choice": asdict(choice),
        "about": "" if found is None else describe(found),
        "advice": sentence(choice),
    }


def _text(answer: Mapping[str, Any]) -> str:
    lines = [f"{answer['dataset']}: {answer['about']}".removesuffix(": ")]
    weights = answer["weights"]
    if answer["features"] is not None and answer["dataset"] not in weights:
        total = sum(weights.values())
        near = sorted(weights, key=lambda name: -weights[name])
        shares = ", ".join(f"{name} by {weights[name] / total:.0%}" for name in near)
        lines.append(f"It is not in the sweep; what counts is how like it the others are: {shares}.")
    return "\n".join([*lines, answer["advice"]])


def _scores(entries: list[Entry]) -> dict[str, dict[str, list[float]]]:
    """Returns of the last policies, by dataset and method."""
    found: dict[str, dict[str, list[float]]] = {}
    for entry in sorted(entries, key=lambda one: (one.dataset, one.method, one.seed)):
        final = entry.final()
        if final is not None:
            found.setdefault(entry.dataset, {}).setdefault(entry.method, []).append(final)
    return found


def _features(entries: list[Entry]) -> dict[str, Features]:
    """What the sweep's datasets are like."""
    return {
        entry.dataset: features(entry.record.stage("prepare-dataset").facts(DatasetFacts))
        for entry in entries
        if entry.record is not None
    }
