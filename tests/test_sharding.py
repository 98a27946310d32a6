"""What the devices tell each other in a step: sums of gradients and statistics, and never an image's activations."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tiny import SETTINGS

SCRIPT = Path(__file__).parent / "support" / "compiled_step.py"
VIEWS, WIDTH = 2 + SETTINGS.crops.local_crops, SETTINGS.head.bottleneck


def exchanged(model_axis: int) -> list[str]:
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(SCRIPT), str(model_axis)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()


def test_devices_exchange_only_sums() -> None:
    result = exchanged(1)
    assert result and all(line.startswith("all-reduce ") for line in result)


def test_devices_that_share_prototypes_exchange_bottleneck_vectors() -> None:
    """Each pair gathers those of its 16 images: the student's views for the loss, the teacher's two for the center."""
    gathered = sorted(line for line in exchanged(2) if not line.startswith("all-reduce "))
    shapes = [tuple(map(int, re.search(r"f32\[([\d,]+)\]", line)[1].split(","))) for line in gathered]  # type: ignore[index]
    assert all(line.startswith("all-gather ") for line in gathered)
    assert shapes == [(16, VIEWS, WIDTH), (32, WIDTH)]
