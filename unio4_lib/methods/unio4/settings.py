"""The settings of a whole run of Uni-O4."""

from typing import ClassVar, Literal

from pydantic import Field

from unio4_lib.settings.fqe import FqeConfig
from unio4_lib.settings.model import (
    BehaviorConfig,
    CloningConfig,
    CriticsConfig,
    DynamicsConfig,
    ExtractConfig,
    FinetuneConfig,
    ImproveConfig,
    RunConfig,
)

SELECTION_FACTOR = 4  # times as many starts behind a choice among policies as behind a gate check


class UniO4Config(RunConfig):
    """Clones, critics and models of the data, improvement behind the gate, and PPO online."""

    title: ClassVar[str] = "Uni-O4"

    method: Literal["unio4"] = Field("unio4", description="The offline-to-online method.")
    behavior: BehaviorConfig = BehaviorConfig()
    critics: CriticsConfig = CriticsConfig()
    dynamics: DynamicsConfig = DynamicsConfig()
    extract: ExtractConfig = ExtractConfig()
    improve: ImproveConfig = ImproveConfig()
    fqe: FqeConfig = FqeConfig()
    finetune: FinetuneConfig = FinetuneConfig()

    @property
    def discount(self) -> float:
        return self.critics.discount

    def holdouts(self) -> dict[str, float]:
        return {
            f"{name}.holdout_fraction": getattr(self, name).holdout_fraction
            for name in ("behavior", "dynamics")
        }

    def extraction(self) -> CloningConfig:
        """How policies are extracted: as behavior policies are cloned, but for what ``extract`` says."""
        shared = {name: getattr(self.behavior, name) for name in CloningConfig.model_fields}
        return CloningConfig(**shared | self.extract.model_dump())
