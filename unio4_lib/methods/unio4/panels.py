"""What Uni-O4 adds to the report."""

from unio4_lib.methods.unio4 import checks
from unio4_lib.methods.unio4.improvement_section import improvement_section
from unio4_lib.methods.unio4.learning_sections import clones_section, critics_section, models_section
from unio4_lib.report.online_section import online_section

PANELS = (
    ("clones", "Clones", clones_section),
    ("critics", "Critics", critics_section),
    ("models", "Models", models_section),
    ("improvement", "Improvement", improvement_section),
    ("online", "Online", online_section),
)
CHECKS = (
    checks.clones_check,
    checks.critics_check,
    checks.models_check,
    checks.spread_check,
    checks.trust_check,
    checks.opinion_check,
    checks.gate_check,
    checks.ranking_check,
)
