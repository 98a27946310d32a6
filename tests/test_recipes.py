"""The experiments: a row for every backbone, all of one recipe, and figures that their command still prints."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cion_jax.config import AUTO, Pretraining
from cion_jax.demo.plan import DEFAULT
from cion_jax.errors import UserError
from cion_jax.models.resnet import SMALL as RESNET_SMALL
from cion_jax.models.zoo import ZOO
from cion_jax.pretrain.flops import step_flops
from cion_jax.recipes import PAPER, RECIPES, recipe
from cion_jax.run.pretraining import check, instances_at, model_of
from experiments.benchmarks import memory

FITS: dict[str, dict[str, list[int]]] = json.loads((Path(memory.__file__).parent / "what_fits.json").read_text())


def test_every_backbone_of_the_paper_has_a_row_and_nothing_else_but_those_for_small_data() -> None:
    assert [*PAPER] == [name for name in ZOO if name != RESNET_SMALL]
    assert [*RECIPES] == [*PAPER, "small", "demo", "people", "debug"]
    assert all(RECIPES[name].backbone == name for name in PAPER)
    assert {RECIPES[name].backbone for name in ("small", "demo", "people", "debug")} <= {*ZOO}
    assert RECIPES["demo"] is DEFAULT.training


def test_what_fits_is_told_for_every_backbone() -> None:
    assert [*FITS] == [*PAPER]
    for row in FITS.values():
        assert [int(size) for size in row] == [*memory.DEVICES]
        plain, spared = zip(*row.values(), strict=True)
        assert all(images % memory.STEP == 0 for images in plain + spared)
        assert sorted(plain) == list(plain) and all(few <= many for few, many in zip(plain, spared, strict=True))


@pytest.mark.parametrize("name", PAPER)
def test_a_row_is_the_recipe_of_the_paper(name: str) -> None:
    row = RECIPES[name]
    assert (row.epochs, row.batch, row.instances, row.stages) == (100, 960, (2, 4, 6, 8), (0, 40, 60, 80))
    assert (row.optimization.optimizer, row.optimization.learning_rate) == ("adamw", 5e-4)
    assert (row.crops.global_size, row.crops.local_size, row.crops.local_crops) == ((256, 128), (128, 64), 8)
    assert row.head.prototypes == 65536


@pytest.mark.parametrize("name", RECIPES)
def test_the_three_levels_are_one_setting_and_batches_hold_whole_identities(name: str) -> None:
    row = RECIPES[name]
    assert all(row.batch % instances == 0 for instances in row.instances)
    for level, instances in (("instance", {1}), ("tracklet", set(row.instances)), ("identity", set(row.instances))):
        settings = replace(row, level=level)  # type: ignore[arg-type]
        fitting = {"debug": (1,), "people": (1,), "small": (1, 2, 4, 8), "demo": (1, 2, 4)}
        for devices in fitting.get(name, (1, 2, 4, 8, 40)):
            check(settings, devices)
        assert {instances_at(settings, epoch) for epoch in range(row.epochs)} == instances


def test_debug_is_small() -> None:
    row = RECIPES["debug"]
    assert row.precision == "float32" and row.head.prototypes <= 1024 and row.batch <= 48 and row.epochs <= 2
    assert row.crops.global_size == (32, 16) and row.image_size == (64, 32) and len(row.instances) == 1  # a program
    assert row.level == "tracklet"  # its records know no identities


def test_small_is_an_hour_at_ten_tflops_and_fits_small_gpus_in_parts() -> None:
    row = RECIPES["small"]
    assert row.crops.global_size == (128, 64) and len(row.instances) == 1 and row.accumulate == AUTO
    operations = row.epochs * 100_000 / row.batch * step_flops(row, model_of(row))
    assert 0.5 < operations / 1e13 / 3600 < 1


def test_a_name_that_is_nearly_right_is_answered_with_those_that_are() -> None:
    assert recipe("resnet50_ibn") is RECIPES["resnet50_ibn"]
    with pytest.raises(UserError, match="'resnet50_ibm'; did you mean resnet50_ibn or "):
        recipe("resnet50_ibm")
    with pytest.raises(UserError, match=r"'qqq'; there are resnet18, .*, debug, or a \.py file"):
        recipe("qqq")


def test_a_file_of_settings_is_an_experiment(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text(
        "from dataclasses import replace\nfrom cion_jax.recipes import RECIPES\n"
        "settings = replace(RECIPES['vit_tiny'], epochs=7)\n"
    )
    assert recipe(str(path)) == replace(RECIPES["vit_tiny"], epochs=7)
    for text, message in (
        ("settings = 3", "`settings` is 3; make it"),
        ("", "`settings` is None; make it"),
        ("1 / 0", "ZeroDivisionError"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=re.escape(f"{path}: {message}")):
            recipe(str(path))
    with pytest.raises(UserError, match=r"none\.py: not there; name a Python file"):
        recipe(str(tmp_path / "none.py"))


def test_looking_a_row_up_wakes_nothing_heavy() -> None:
    command = "import sys, cion_jax.recipes; sys.exit(any(name in sys.modules for name in ('jax', 'flax', 'grain')))"
    subprocess.run([sys.executable, "-c", command], check=True, cwd=Path(__file__).parent.parent)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny", "convnext_tiny"])
def test_recorded_memory_is_what_the_command_prints(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    memory.main(name)
    out = capsys.readouterr().out
    assert out.startswith("ESTIMATED")
    cells = [cell.strip() for cell in out.splitlines()[-1].strip("|").split("|")]
    assert cells[0] == name and cells[3:] == [f"{plain} / {spared}" for plain, spared in FITS[name].values()]


def test_what_the_backward_pass_holds_of_functions_that_one_can_count() -> None:
    """A product holds its other factor and sine its slope; under remat only inputs, until it is computed again."""
    weights, inputs = np.zeros((3, 5), np.float32), np.zeros((7, 3), np.float32)
    product, curve = 7 * 3 * 4, 7 * 5 * 4

    def layer(weights: jax.Array, inputs: jax.Array) -> jax.Array:
        return jnp.sin(inputs @ weights)

    def twice(weights: jax.Array, inputs: jax.Array) -> jax.Array:
        return jax.checkpoint(layer)(weights, inputs) + jax.checkpoint(layer)(weights, inputs + 1)

    assert memory.held_bytes(layer, weights, inputs) == product + curve
    assert memory.recomputed_bytes(layer, weights, inputs) == 0
    assert memory.held_bytes(twice, weights, inputs) == 2 * product + weights.nbytes  # the same ones for both
    # The gradient also reaches a block's input: its weights are held, too.
    assert memory.recomputed_bytes(twice, weights, inputs) == product + curve + weights.nbytes


def test_memory_that_does_not_grow_with_images_is_that_of_the_state() -> None:
    """AdamW keeps student, teacher, gradients and two moments: five times the parameters, and the center."""
    settings = Pretraining(backbone="resnet18")
    plain, _ = memory.needs(settings)
    backbone, hidden = 11_176_512, 512 * 2048 + 2048 * 2049 + 2048 + 2048 * 256 + 256
    prototypes = 65536 * 256
    statistics, center = 2 * 2 * 4800, 65536
    expected = 4 * (5 * (backbone + hidden + prototypes) + statistics + center)
    assert plain.fixed == pytest.approx(expected, rel=2e-3)  # counters, and lengths of prototypes
    assert memory.Need(10**9, 10**8).fits(16) == 96  # (12 - 1) GB hold 110 images of 0.1 GB
    assert memory.Need(10**9, 10**9).fits(16) == 0 == memory.Need(10**12, 1).fits(16)
