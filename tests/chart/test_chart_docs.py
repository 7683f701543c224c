"""The chart's README, and its copies of what belongs elsewhere."""

import re
import runpy
from pathlib import Path

import pytest
import yaml
from rendered_chart import CHART


def test_table_of_values_is_that_of_the_values(repository: Path) -> None:
    made = runpy.run_path(str(repository / "charts" / "values_table.py"))
    text = (CHART / "README.md").read_text()
    assert made["readme"](text, (CHART / "values.yaml").read_text()) == text, "run make docs-chart"


def test_a_value_without_comment_is_refused(repository: Path) -> None:
    made = runpy.run_path(str(repository / "charts" / "values_table.py"))
    with pytest.raises(ValueError, match=r"mlflow\.replicas has no comment"):
        made["table"]("mlflow:\n  # -- Yes\n  enabled: true\n  replicas: 1\n")


def test_pipelines_of_the_chart_are_the_compiled_ones(repository: Path) -> None:
    compiled = {
        path.name: path.read_text() for path in (repository / "pipelines" / "compiled").glob("*.yaml")
    }
    if not compiled:
        pytest.skip("no compiled pipelines yet")
    inside = {path.name: path.read_text() for path in (CHART / "files" / "pipelines").glob("*.yaml")}
    assert inside == compiled, "run make chart-pipelines"


def test_readme_names_values_that_exist() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    documents = [CHART / "README.md", CHART.parents[1] / "docs" / "cluster.md"]
    sections = "|".join(values)
    for document in documents:
        for path in re.findall(rf"`((?:{sections})\.[A-Za-z0-9.]+)", document.read_text()):
            node = values
            for part in path.split("."):
                assert part in node, f"{document.name}: {path}"
                node = node[part]
