"""Tables that campaigns write into the documentation."""

from pathlib import Path


def write_table(path: Path, name: str, text: str) -> None:
    """Put a table where the page has the marks for it: <!-- name --> and <!-- /name -->."""
    mark, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, found, rest = path.read_text().partition(mark)
    assert found and end in rest, f"{path} has no {mark} or no {end}"
    path.write_text(f"{before}{mark}\n{text}\n{end}{rest.partition(end)[2]}")
