"""YAML as settings need it: duplicate keys are errors, 1e-4 is a number, messages are one line."""

import re
from pathlib import Path
from typing import Any

import yaml

from unio4_lib.errors import InputError

# Whole numbers above this are not exact as floats.
EXACT_FLOAT = 2**53


class SettingsLoader(yaml.SafeLoader):
    """SafeLoader with three of YAML 1.1's traps closed."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be a single word", key_node.start_mark
                )
            if key_node.tag == "tag:yaml.org,2002:merge":  # a few lines of them fill any memory
                raise yaml.constructor.ConstructorError(
                    None, None, "<< is not understood; write the keys out", key_node.start_mark
                )
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key_node.value} is given twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def _construct_exponent(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float | int:
    """1e-4 is a float and 1e6 a whole number (YAML 1.1 reads both as text)."""
    value = float(loader.construct_scalar(node).replace("_", ""))
    return int(value) if value.is_integer() and abs(value) < EXACT_FLOAT else value


EXPONENT_TAG = "tag:unio4,2025:exponent"
EXPONENT = re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$")
# First in the list of resolvers of each first character: YAML's own float would take 1.0e+6.
for _first in "-+0123456789":
    SettingsLoader.yaml_implicit_resolvers = {
        **SettingsLoader.yaml_implicit_resolvers,
        _first: [(EXPONENT_TAG, EXPONENT), *SettingsLoader.yaml_implicit_resolvers.get(_first, [])],
    }
SettingsLoader.add_constructor(EXPONENT_TAG, _construct_exponent)


def parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML text; ``where`` starts the message if it has none."""
    try:
        return yaml.load(text, Loader=SettingsLoader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise InputError(f"{where}:{line} {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{where}: not valid YAML: {first_line}") from None


def read_yaml(path: Path) -> Any:
    """The value of a YAML file."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected a YAML file of settings") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}); expected a YAML file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a YAML file") from None
    return parse_yaml(text, str(path))
