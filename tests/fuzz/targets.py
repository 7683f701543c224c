"""All targets of the fuzzer: each makes something that is fine, and damages a copy of it in each case."""

from collections.abc import Callable
from pathlib import Path

import data_targets as data
import given_targets as given
import made_targets as made
from target import Target

MAKERS: tuple[Callable[[Path], Target], ...] = (
    given.settings_file,
    given.settings_texts,
    given.sources,
    data.minari_metadata,
    data.minari_bytes,
    data.minari_structure,
    data.d4rl_bytes,
    data.d4rl_structure,
    data.transitions,
    made.artifacts,
    made.references,
    made.states,
    made.policies,
    made.spools,
    made.reports,
)
TARGETS = {maker.__name__.replace("_", "-"): maker for maker in MAKERS}
