"""Documentation is executed: commands parse, cheap ones run, links lead somewhere, names exist."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from tiny_runs import call
from typer import Typer
from typer.core import TyperGroup
from typer.exceptions import TyperException
from typer.main import get_command

from unio4_lib.cli import artifacts as cli_artifacts
from unio4_lib.cli import bench as cli_bench
from unio4_lib.cli import commands as cli
from unio4_lib.cli import dataset as cli_dataset
from unio4_lib.cli import recommend as cli_recommend
from unio4_lib.cli import submit as cli_kfp
from unio4_lib.cli import sweep as cli_sweep
from unio4_lib.methods.configs import settings_page
from unio4_lib.methods.registry import METHODS, find_method
from unio4_lib.runs.spec import PipelineSpec
from unio4_lib.settings.keys import known_keys, known_sections
from unio4_lib.settings.layers import PRESETS
from unio4_lib.sources.grammar import SCHEMES, parse_source

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`((?:unio4|make|kfp run) [^`]+)`")
BEFORE_PROGRAM = re.compile(r"^(?:[A-Z][A-Z0-9_]*=\S+ +)*(?:\.venv/bin/)?")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
MODELS = [find_method(name).settings for name in METHODS]
KEYS = {key for model in MODELS for key in known_keys(model)}
SECTIONS = sorted({section for model in MODELS for section in known_sections(model)})
KEY = re.compile(rf"`((?:{'|'.join(SECTIONS)})\.\w+)[`=]")
# Handed on by `unio4` to a command of their own.
ELSEWHERE = {
    "artifacts": cli_artifacts.app,
    "bench": cli_bench.app,
    "dataset": cli_dataset.app,
    "recommend": cli_recommend.recommend_app,
    "submit": cli_kfp.submit_app,
    "sweep": cli_sweep.sweep_app,
}
CHEAP = (
    ("unio4", "artifacts", "list"),
    ("unio4", "config"),
    ("unio4", "doctor"),
    ("unio4", "dataset", "list"),
    ("unio4", "--version"),
)
PLACEHOLDERS = {"<source>": "minari:mine", "<n>": "1", "<sweep>": "mine"}
OPTIONS_OF_SETTINGS = ("--dataset", "--method", "--preset", "--config", "--set", "--seed")

Capture = pytest.CaptureFixture[str]


def lines_of_blocks(page: Path) -> list[str]:
    """Every command of the shell blocks without its variables; what a backslash continues is one line."""
    blocks = [body for language, body in FENCE.findall(page.read_text("utf-8")) if language == "bash"]
    lines = [line.strip() for body in blocks for line in body.replace("\\\n", " ").splitlines()]
    return [BEFORE_PROGRAM.sub("", line) for line in lines]


def commands(name: str, *, mentioned: bool = True) -> list[list[str]]:
    """The words of every command of that name in any page, without comments."""
    found = []
    for page in PAGES:
        lines = lines_of_blocks(page)
        if mentioned:
            spans = INLINE.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
            lines += [span for span in spans if "..." not in span]
        found += [shlex.split(filled(line), comments=True) for line in lines if line.startswith(f"{name} ")]
    assert found, name
    return [list(words) for words in sorted(set(map(tuple, found)))]


def filled(line: str) -> str:
    """A command with something in the place of what the reader fills in."""
    for placeholder, value in PLACEHOLDERS.items():
        line = line.replace(placeholder, value)
    return line


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with the file of settings that the README shows."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (example,) = (body for language, body in FENCE.findall(readme) if language == "yaml")
    assert example.startswith("# my.yaml")
    (tmp_path / "my.yaml").write_text(example)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("words", commands("unio4"), ids=" ".join)
def test_command_of_unio4(words: list[str], desk: Path, capsys: Capture) -> None:
    # Unknown options and commands are found before the help is shown.
    code, out, err = call(capsys, *words[1:], "--help")
    assert (code, err) == (0, "")
    assert "Usage" in out
    if any(tuple(words[: len(cheap)]) == cheap for cheap in CHEAP):
        code, out, err = call(capsys, *shown(words)[1:])
        assert code == 0, err
        assert out
    if words[1] in ("run", "submit", "sweep", "stage"):
        settings_resolve(words[2:], capsys)
    for word in words[1:]:
        if word.startswith(tuple(f"{scheme}:" for scheme in SCHEMES)):
            parse_source(word)


@pytest.mark.parametrize("words", commands("unio4", mentioned=False), ids=" ".join)
def test_a_command_to_be_copied_is_complete(words: list[str]) -> None:
    """Whatever must be given is there, and every value is of its kind: the command line parses it."""
    if words[1] in ELSEWHERE:
        parse(ELSEWHERE[words[1]], words[2:])
    elif words != ["unio4", "--version"]:
        parse(cli.app, words[1:])


def parse(app: Typer, words: list[str]) -> None:
    command, context = get_command(app), None
    while True:
        context = command.make_context("unio4", list(words), parent=context)
        if not isinstance(command, TyperGroup):
            return
        _, found, words = command.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None
        command = found


def test_parsing_can_fail() -> None:
    for app, words in (
        (cli.app, ["run", "--nonsense"]),
        (cli.app, ["evaluate", "runs/latest", "--episodes", "many"]),
        (cli.app, ["stage", "fit-critics"]),
        (cli_kfp.submit_app, ["--artifact-root", "s3://b/p"]),
        (cli_artifacts.app, ["lst"]),
    ):
        with pytest.raises(TyperException):
            parse(app, words)


# What a shell block may begin with; a new program is a new line here, and a thought about how it is tested.
PROGRAMS = {
    "cd": "",
    "docker": "tests/containers, where Docker is there",
    "done": "",
    "export": "",
    "for": "",
    "helm": "tests/chart/test_chart_docs.py",
    "kfp": "below",
    "kind": "a cluster",
    "kubectl": "a cluster",
    "make": "above",
    "minikube": "a cluster",
    "pip": "a network",
    "python": "below",
    "unio4": "above",
}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_programs_of_commands_are_known(page: Path) -> None:
    for line in lines_of_blocks(page):
        if words := shlex.split(line, comments=True):
            assert words[0] in PROGRAMS, line


def test_scripts_modules_and_tests_exist() -> None:
    for words in commands("python"):
        module = words[1] == "-m" and words[2].replace(".", "/") + ".py"
        files = [word for word in words if word.endswith(".py")] + ([module] if module != "pytest.py" else [])
        for file in filter(None, files):
            # The one that the page on own data shows; its test runs it.
            assert file == "record.py" or (ROOT / file).is_file(), words


def test_runs_that_kfp_creates_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    """By KFP's own command line, and the parameters by the pipeline."""
    from kfp.cli.run import create

    monkeypatch.chdir(ROOT)
    for words in commands("kfp"):
        assert words[1:3] == ["run", "create"]
        given = create.make_context("create", words[3:]).params
        known = PipelineSpec.load(Path(given["package_file"])).root["inputDefinitions"]["parameters"]
        assert {word.partition("=")[0] for word in given["args"]} <= set(known), words


def test_the_pictures_are_shown_and_small() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    for picture in (ROOT / "docs" / "images").iterdir():
        assert picture.stat().st_size < 300_000, picture
        assert re.search(rf"!\[[^]]+\]\([^)]*images/{re.escape(picture.name)}\)", text), picture


def shown(words: list[str]) -> list[str]:
    """`config show` needs a dataset, which a mention in a sentence may leave out."""
    bare = words[1:3] == ["config", "show"] and "--dataset" not in words
    return [*words, "--dataset", "minari:mine"] if bare else words


def settings_resolve(options: list[str], capsys: Capture) -> None:
    """The settings of a run are valid: `config show` takes the same ones and works at once."""
    kept: list[str] = []
    for option, value in pairwise(options):
        if option in OPTIONS_OF_SETTINGS:
            kept += [option, value]
    if "--dataset" in kept:
        code, _, err = call(capsys, "config", "show", *kept)
        assert code == 0, err


@pytest.mark.parametrize("words", commands("make"), ids=" ".join)
def test_command_of_make(words: list[str], desk: Path, capsys: Capture) -> None:
    # A dry run: targets exist, and the variables become a command whose settings are valid.
    ended = subprocess.run(
        ["make", "-n", "-C", str(ROOT), *words[1:]], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    for line in ended.stdout.replace("\\\n", " ").splitlines():
        if "/unio4 run " in line:
            settings_resolve(shlex.split(line)[2:], capsys)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if target.startswith(("https://", "http://")):
            continue
        place, _, anchor = target.partition("#")
        file = page.parent / place if place else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target


def anchors(page: Path) -> list[str]:
    """How GitHub names headings."""
    headings = HEADING.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def test_the_index_has_every_page() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / target).resolve() for target in LINK.findall(index.read_text())}
    assert set(PAGES) - {index} <= linked


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_settings_that_are_named_exist(page: Path) -> None:
    for name in KEY.findall(page.read_text(encoding="utf-8")):
        files = ("yaml", "py", "json", "md", "safetensors")
        assert name in KEYS or name.rpartition(".")[2] in files, name


def test_the_page_of_settings_is_up_to_date() -> None:
    # Renewed by: make docs-config
    assert (ROOT / "docs" / "config.md").read_text(encoding="utf-8") == settings_page()


def test_the_readme_says_what_to_type_first() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    first = next(body for language, body in FENCE.findall(readme) if language == "bash")
    assert [line.split("#")[0].strip() for line in first.splitlines()] == ["make run", "make test"]
    for name in PRESETS:
        assert f"`{name}`" in readme


def source_text() -> str:
    """All strings of the library; adjacent literals of a message are joined."""
    text = "".join(path.read_text() for path in sorted((ROOT / "unio4_lib").rglob("*.py")))
    return re.sub(r"[\"']\n\s*f?[\"']", "", text)


def troubles() -> Iterator[str]:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    for heading in HEADING.findall(page):
        if heading.startswith("`"):
            yield heading.strip("`")


@pytest.mark.parametrize("message", list(troubles()))
def test_messages_that_are_explained_are_said(message: str) -> None:
    assert message in source_text()


def test_every_metric_is_explained() -> None:
    page = (ROOT / "docs" / "algorithms" / "uni-o4.md").read_text(encoding="utf-8")
    metric = re.compile(r"[\"`]((?:behavior|critics|dynamics|improve)/\w+)[\"`]")
    rooms = [ROOT / "unio4_lib" / name for name in ("judging", "learning", "methods/unio4")]
    offline = "".join(path.read_text() for room in rooms for path in room.glob("*.py"))
    assert set(metric.findall(page)) == set(metric.findall(offline))


def test_pages_of_methods_have_the_agreed_headings() -> None:
    for page in (ROOT / "docs" / "algorithms").glob("*.md"):
        headings = re.findall(r"^## (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert headings == [
            "Idea and equations",
            "Usage",
            "Settings",
            "Metrics",
            "Differences from the paper and the published code",
            "Results",
            "Known limits",
        ]
