"""The options that the benchmarks of a step share, and the settings that they make of a recipe."""

from dataclasses import dataclass, replace
from typing import Literal

import jax

from cion_jax.config import Pretraining
from cion_jax.recipes import recipe
from experiments.benchmarks.memory import SHARE, STEP, needs


@dataclass(frozen=True)
class StepOptions:
    """The size of a step, and how often it runs. What is None is as in the recipe, or as follows."""

    batch: int | None = None
    """Images in a step, over all devices; by default 24 on a CPU, elsewhere the recipe's, or as many as fit."""
    height: int | None = None
    """Of images and global crops; they are half as wide, and local crops are half as large."""
    local_crops: int | None = None
    """Local crops of an image."""
    precision: Literal["bfloat16", "float32"] | None = None
    """On a CPU the default is float32."""
    rounds: int = 5
    """How often each contestant has its turn; the printed figures are medians."""
    steps: int | None = None
    """How often each contestant runs in a turn; by default once on a CPU, elsewhere ten times."""

    def settings(self, name: str) -> Pretraining:
        """A recipe, or a file of settings, in this size; its batch goes through the networks in one part."""
        row = replace(recipe(name), accumulate=1)
        crops = row.crops if self.local_crops is None else replace(row.crops, local_crops=self.local_crops)
        if self.height is not None:
            row = replace(row, image_size=(self.height, self.height // 2))
            crops = replace(crops, global_size=row.image_size, local_size=(self.height // 2, self.height // 4))
        return replace(
            row,
            batch=self.batch or (STEP if on_cpu() else row.batch),
            crops=crops,
            precision=self.precision or ("float32" if on_cpu() else row.precision),
        )

    def fitted_settings(self, name: str, devices: int) -> Pretraining:
        """The same, by default with no more images than so many devices should hold."""
        settings = self.settings(name)
        if self.batch or on_cpu():
            return settings
        limit = (jax.devices()[0].memory_stats() or {}).get("bytes_limit", 0)
        each = needs(settings)[settings.remat].fits(round(limit / SHARE / 1e9))
        return replace(settings, batch=min(settings.batch, devices * max(STEP, each)))

    def repeats(self) -> int:
        """Steps in a turn."""
        return self.steps or (1 if on_cpu() else 10)


#: All as in the recipe.
DEFAULTS = StepOptions()


def on_cpu() -> bool:
    """Whether JAX computes on a CPU."""
    return jax.default_backend() == "cpu"
