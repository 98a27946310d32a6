"""Fine-tuning in the small: a ResNet that compiles in seconds, and `cion` that can be killed at a step."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cion_jax.cli import main
from cion_jax.models import resnet
from cion_jax.models.zoo import ZOO, Family
from cion_jax.run import trainer
from cion_jax.run.journal import Journal
from shared_step import shared_step

TOY = "toy"
FAMILY = Family(
    "ResNet",
    "none",
    SimpleNamespace(VARIANTS={TOY: resnet.ResNet((1, 1, 1, 1), False, True, width=8)}, ORDER=resnet.ORDER),
)
#: Options that all methods share: three epochs of four steps, a checkpoint at every third.
COMMON = "--epochs 3 --epoch-steps 4 --batch 16 --instances 4 --precision float32 --threads 1 --checkpoint-steps 3"
COMMANDS = {
    "bnneck": f"finetune bnneck {COMMON} --image-size 32 16 --size 32 16 --validation 0.3 --evaluate-every 1 --pad 2",
    "mgn": f"finetune mgn {COMMON} --image-size 48 16 --size 48 16 --validation 0 --pad 2 --frozen 1 --warmup 1 "
    "--resize bicubic",
    "dbscan": f"adapt {COMMON} --image-size 32 16 --size 32 16 --pad 2 --k1 8 --k2 2 --min-samples 2 --eps 0.7 "
    "--learning-rate 0.05 --resize bicubic",
    "denoise": f"adapt {COMMON} --image-size 32 16 --size 32 16 --pad 2 --by denoise --tau 0.3 --memory-update plain",
}


def stand_in(patch: pytest.MonkeyPatch) -> None:
    """The toy in the zoo, also as fresh weights, and `shared_step` in the trainer."""
    patch.setitem(ZOO, TOY, FAMILY)
    patch.setattr(trainer, "jit_step", shared_step)


def cion(command: str, *arguments: Any) -> int:
    return main([*command.split(), *map(str, arguments)])


def killed_at(patch: pytest.MonkeyPatch, number: int, command: str, *arguments: Any) -> int:
    """The same, ended as soon as the journal has that step."""
    record = Journal.record

    def recording(journal: Journal, step: int, *rest: Any) -> None:
        record(journal, step, *rest)
        if step == number:
            raise KeyboardInterrupt

    with patch.context() as inner:
        inner.setattr(Journal, "record", recording)
        return cion(command, *arguments)


def rows(out: Path) -> list[dict[str, Any]]:
    """The journal, without what the clock says."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("time", "images_per_second", "waiting")} for line in lines]
