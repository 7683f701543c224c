"""Settings: layers, presets, the paper's table, and every way to get them wrong."""

import hashlib
import inspect
from pathlib import Path

import pytest
import yaml

from unio4_lib.errors import InputError
from unio4_lib.methods.configs import load_config, resolve_config, settings_page
from unio4_lib.methods.registry import METHODS, find_method
from unio4_lib.settings.keys import known_keys, nearest_key
from unio4_lib.settings.layers import PRESETS, dataset_words, find_task
from unio4_lib.settings.model import EvaluateConfig, StageConfig, config_digest
from unio4_lib.settings.pages import config_yaml

MODEL = find_method("unio4").settings
TASKS = find_method("unio4").presets_of().tasks("paper", MODEL)
HOPPER = "minari:mujoco/hopper/medium-v0"


def line_of(**arguments: object) -> str:
    """The message of a refused configuration; it must be one line."""
    with pytest.raises(InputError) as caught:
        load_config(**{"dataset": HOPPER, **arguments})  # type: ignore[arg-type]
    message = str(caught.value)
    assert message and "\n" not in message
    return message


# Wrong settings on the command line and the exact line that each must give.
BAD_SETTINGS = {
    "improve.steps": "--set improve.steps: expected key=value, for example --set improve.steps=2000",
    "=3": "--set =3: expected key=value, for example --set improve.steps=2000",
    "improv.steps=3": "--set improv.steps=3: unknown key improv.steps; did you mean improve.steps?",
    "critics.expectille=.8": (
        "--set critics.expectille=.8: unknown key critics.expectille; did you mean critics.expectile?"
    ),
    "expectile=.8": "--set expectile=.8: unknown key expectile; did you mean critics.expectile?",
    "sed=3": "--set sed=3: unknown key sed; did you mean seed?",
    "improve=3": "--set improve=3: improve is a section; expected one of its keys, such as improve.members",
    "improve.steps=many": ("--set improve.steps=many: improve.steps is 'many'; expected a whole number >= 1"),
    "improve.steps=2.5": "--set improve.steps=2.5: improve.steps is 2.5; expected a whole number >= 1",
    "improve.steps=": "--set improve.steps=: improve.steps is null; expected a whole number >= 1",
    "improve.steps='5'": "--set improve.steps='5': improve.steps is '5'; expected a whole number >= 1",
    "improve.steps=0": "--set improve.steps=0: improve.steps is 0; expected a whole number >= 1",
    "improve.clip=2": "--set improve.clip=2: improve.clip is 2; expected a number > 0 and < 1",
    "critics.discount=.nan": (
        "--set critics.discount=.nan: critics.discount is nan; expected a number >= 0 and < 1"
    ),
    "finetune.target_kl=no": (
        "--set finetune.target_kl=no: finetune.target_kl is false; expected a number > 0 or null"
    ),
    "seed=true": "--set seed=true: seed is true; expected a whole number >= 0",
    "finetune.anneal=1": "--set finetune.anneal=1: finetune.anneal is 1; expected true or false",
    "device=tpu": "--set device=tpu: device is 'tpu'; expected one of auto, cpu, cuda",
    "behavior.hidden=[]": (
        "--set behavior.hidden=[]: behavior.hidden is []; "
        "expected a list of at least one entry, each a whole number >= 1"
    ),
    "behavior.hidden=[64,x]": (
        "--set behavior.hidden=[64,x]: behavior.hidden entry 1 is 'x'; "
        "expected a list of at least one entry, each a whole number >= 1"
    ),
    "improve.steps=[1": (
        "--set improve.steps=[1: line 1, column 3 expected ',' or ']', but got '<stream end>'"
    ),
    "dynamics.elites=99": (
        "--set dynamics.elites=99: dynamics.elites is 99; expected at most dynamics.members, which is 5"
    ),
    "behavior.holdout_fraction=1": (
        "--set behavior.holdout_fraction=1: behavior.holdout_fraction is 1; expected a number > 0 and < 1"
    ),
    "evaluate.seed=0": (
        "--set evaluate.seed=0: evaluate.seed is 0; expected another number than seed, "
        "so that no policy is scored on the episodes it was trained on"
    ),
}


@pytest.mark.parametrize("setting", BAD_SETTINGS)
def test_bad_setting_gives_one_exact_line(setting: str) -> None:
    overrides = ["dynamics.members=5", "dynamics.elites=5", setting]
    assert line_of(overrides=overrides) == BAD_SETTINGS[setting]


# Wrong files and the exact rest of the line after the file's name.
BAD_FILES = {
    "improve:\n  stps: 3\n": "unknown key improve.stps; did you mean improve.steps?",
    "improve:\n  steps: 5\n  steps: 6\n": "line 3, column 3 key steps is given twice",
    "seed: 1\nseed: 2\n": "line 2, column 1 key seed is given twice",
    "improve: [1\nseed: 3\n": "line 2, column 5 expected ',' or ']', but got ':'",
    "- 1\n": "found a list; expected keys and values, such as seed: 1",
    "improve: 3\n": "improve is a section; expected one of its keys, such as improve.members",
    "improve:\n  steps: x\n": "improve.steps is 'x'; expected a whole number >= 1",
    "a: !!python/object/apply:os.system [ls]\n": (
        "line 1, column 4 could not determine a constructor for the tag "
        "'tag:yaml.org,2002:python/object/apply:os.system'"
    ),
    "? [1]\n: 2\n": "line 1, column 3 a key must be a single word",
    "finetune: {minibatch_size: 99, num_envs: 2, rollout_steps: 3}\n": (
        "finetune.minibatch_size is 99; expected at most finetune.num_envs x finetune.rollout_steps, "
        "which is 6"
    ),
    "finetune: {env_steps: 100, warmup_steps: 100}\n": (
        "finetune.warmup_steps is 100; expected less than finetune.env_steps, which is 100"
    ),
    "improve: {steps: 5, evaluate_every: 6}\n": (
        "improve.evaluate_every is 6; expected at most improve.steps, which is 5 (the gate would never look)"
    ),
}


@pytest.mark.parametrize("text", BAD_FILES)
def test_bad_file_gives_one_exact_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    assert line_of(file=path) == f"{path}: {BAD_FILES[text]}"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    absent = tmp_path / "absent.yaml"
    assert line_of(file=absent) == f"{absent}: no such file; expected a YAML file of settings"
    assert line_of(file=tmp_path) == f"{tmp_path}: cannot be read (Is a directory); expected a YAML file"
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"seed: \xff")
    assert line_of(file=binary) == f"{binary}: not UTF-8 text (byte 6); expected a YAML file"


def test_impossible_preset_lists_the_presets() -> None:
    expected = "--preset papr: no such preset; expected one of quick, standard, paper"
    assert line_of(preset="papr") == expected
    assert line_of(preset="../../etc/passwd").endswith("expected one of quick, standard, paper")


def test_dataset_is_required() -> None:
    with pytest.raises(InputError, match=r"^dataset is not set; expected --dataset \(minari:, d4rl:"):
        load_config()


def test_later_layers_win(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("seed: 3\nimprove: {steps: 4_000, horizon: 7}\n")
    task = "minari:D4RL/pen/human-v2"
    resolved = resolve_config("paper", path, ["improve.horizon=9", "seed=4"], dataset=task, seed=5)
    assert resolved.config.improve.clip == 0.25  # preset
    assert resolved.config.improve.learning_rate == 1e-5  # task, over the preset's 1e-4
    assert resolved.config.improve.steps == 4_000  # file, over the preset's 10,000
    assert resolved.config.improve.horizon == 9  # --set, over the file's 7 and the task's 50
    assert resolved.config.seed == 5  # --seed, over --set
    wanted = {
        "improve.clip": "preset paper",
        "improve.learning_rate": "task pen-human",
        "improve.steps": str(path),
        "improve.horizon": "--set improve.horizon=9",
        "seed": "--seed",
        "improve.patience": "preset paper",
        "improve.rollouts": "default",
    }
    assert {key: resolved.origins[key] for key in wanted} == wanted


def test_numbers_are_read_as_people_write_them() -> None:
    config = load_config(
        dataset=HOPPER, overrides=["improve.steps=1e3", "improve.learning_rate=1e-4", "critics.steps=2_000"]
    )
    assert (config.improve.steps, config.improve.learning_rate, config.critics.steps) == (1000, 1e-4, 2000)


def test_every_method_has_every_preset_and_papers_sizes_where_they_are_known() -> None:
    found = {
        (name, preset): load_config(preset, dataset=HOPPER, method=name)
        for name in METHODS
        for preset in find_method(name).presets_of().names
    }
    assert {preset for _, preset in found} == set(PRESETS) and len(found) == len(METHODS) * len(PRESETS)
    small, full = (found["cfdg", preset] for preset in ("quick", "paper"))
    assert [one.cfdg.denoiser_width for one in (small, full)] == [256, 1024]  # type: ignore[attr-defined]
    assert [one.train.steps for one in (small, full)] == [15_000, 1_000_000]  # type: ignore[attr-defined]
    assert found["apl", "paper"].finetune.updates_per_step == 10  # type: ignore[attr-defined]


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_valid_and_survive_their_file(preset: str, tmp_path: Path) -> None:
    config = load_config(preset, dataset=HOPPER)
    path = tmp_path / "config.yaml"
    path.write_text(config_yaml(config))
    again = load_config("standard", path)  # whatever the preset: the file says everything
    assert again == config
    assert config_digest(again) == config_digest(config)


@pytest.mark.parametrize("method", METHODS)
def test_a_setting_of_several_bases_is_the_nearest_ones(method: str) -> None:
    """As Python's order says; Pydantic takes the first base that has it, though a later one overrides it."""
    model = find_method(method).settings
    for section in (field.annotation for field in model.model_fields.values()):
        if not (isinstance(section, type) and issubclass(section, StageConfig)):
            continue
        for key, field in section.model_fields.items():
            nearest = next(base for base in section.__mro__ if key in inspect.get_annotations(base))
            assert issubclass(nearest, StageConfig)
            assert field.default == nearest.model_fields[key].default, f"{section.__name__}.{key}"


def test_digest_is_of_the_canonical_json() -> None:
    text = b'{"episodes":5,"seed":1}'
    assert config_digest(EvaluateConfig(episodes=5, seed=1)) == hashlib.sha256(text).hexdigest()


def test_digest_depends_on_values_only() -> None:
    base = load_config(dataset=HOPPER)
    digest = config_digest(base)
    assert len(digest) == 64
    same = load_config(dataset=HOPPER, overrides=[f"improve.steps={base.improve.steps}", "improve.entropy=0"])
    assert config_digest(same) == digest
    assert config_digest(load_config(dataset=HOPPER, seed=1)) != digest


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_valid_and_found_by_its_names(task: str) -> None:
    domain, _, kind = task.partition("-")
    for dataset in (f"minari:D4RL/{domain}/{kind}-v2", f"d4rl:/data/hopper-medium/{domain}_{kind}-v2.hdf5"):
        resolved = resolve_config("paper", dataset=dataset)
        assert f"task {task}" in resolved.origins.values()
        assert resolved.notes == ()


def test_unknown_task_says_so_in_one_line() -> None:
    resolved = resolve_config("paper", dataset="minari:mine/robot-v0")
    note = "no task of the paper preset fits dataset minari:mine/robot-v0: its general values are used"
    assert resolved.notes == (note,)
    assert resolve_config("quick", dataset="minari:mine/robot-v0").notes == ()


def test_names_of_datasets() -> None:
    assert dataset_words("minari:mujoco/hopper/medium-replay-v0") == [
        *("mujoco", "hopper", "medium", "replay", "v0")
    ]
    assert find_task("collect:Hopper-v5?level=medium-expert&steps=9", TASKS) == "hopper-medium-expert"
    assert find_task("d4rl:/hopper-medium/x.hdf5", TASKS) is None


@pytest.mark.parametrize("method", METHODS)
def test_every_key_is_described(method: str) -> None:
    keys = known_keys(find_method(method).settings)
    assert [key.name for key in keys.values() if len(key.meaning) < 10] == []


@pytest.mark.parametrize("method", METHODS)
def test_nearest_key_is_itself_for_every_key(method: str) -> None:
    model = find_method(method).settings
    assert [name for name in known_keys(model) if nearest_key(name, model) != name] == []


def test_nearest_key_looks_past_a_wrong_section() -> None:
    # As whole words both are nearer to a key of the wrong section.
    assert nearest_key("improve.expectile", MODEL) == "critics.expectile"
    assert nearest_key("finetune.elites", MODEL) == "dynamics.elites"


def test_committed_reference_page_is_current(repository: Path) -> None:
    page = (repository / "docs" / "config.md").read_text(encoding="utf-8")
    assert page == settings_page(), "run: make docs-config"


def test_origins_are_comments() -> None:
    resolved = resolve_config(dataset=HOPPER, overrides=["improve.clip=0.1"])
    text = config_yaml(resolved.config, resolved.origins)
    assert "  clip: 0.1  # --set improve.clip=0.1\n" in text
    assert yaml.safe_load(text)["dataset"] == HOPPER
