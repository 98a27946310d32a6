"""The step as XLA compiles it for TPUs that are not there: `debug` on four chips, read to the number."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("libtpu", reason="the compiler for TPUs is in the extra `tpu`")
pytestmark = pytest.mark.slow

#: Where any network will do: little to compile.
SMALL = "resnet10_half_ibn"
CION = [sys.executable, "-c", "import sys; from cion_jax.cli import main; sys.exit(main())"]
#: In a process of its own: JAX in this one has chosen its devices.
SCRIPT = """
import json, sys
from dataclasses import replace
from cion_jax.programs.account import account
from cion_jax.programs.devices import sheet_of
from cion_jax.programs.target import absent_devices
from cion_jax.recipes import recipe
from cion_jax.run.method import abstract_state, lower_step
from cion_jax.run.pretraining import pretraining
from cion_jax.run.sharding import make_mesh
import jax

devices = absent_devices("v5e:2x2")
settings = replace(recipe("debug"), backbone=sys.argv[1], model_axis=int(sys.argv[2]), batch=48, precision="bfloat16")
method = pretraining(settings, devices)
mesh = make_mesh(4, settings.model_axis, devices)
program = lower_step(method, 4, mesh).compile()
read = account(program, sheet_of(devices[0].device_kind), len(jax.tree.leaves(abstract_state(method, mesh))))
wide = {k.source for k in read.kernels for p in k.products if p.dtype == "f32" and p.passes == 1}
print(json.dumps([read.is_donated, read.collectives, read.seconds, sorted(wide)]))
"""


def read(backbone: str, model_axis: int) -> list[Any]:
    """Whether the state is donated, collectives, and lines of products of float32."""
    arguments = [sys.executable, "-c", SCRIPT, backbone, str(model_axis)]
    # As users have it: nothing is said of products from outside.
    environment = {name: value for name, value in os.environ.items() if name != "JAX_DEFAULT_MATMUL_PRECISION"}
    process = subprocess.run(arguments, capture_output=True, text=True, check=False, env=environment)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


def test_the_step_exchanges_sums_alone_and_writes_its_state_in_place() -> None:
    is_donated, collectives, seconds, wide = read("resnet18", 1)
    assert is_donated and seconds > 0
    assert {*collectives} == {"all-reduce"}
    # Beside resampling, which takes more bits, only similarities with prototypes are products of float32.
    assert {line.partition(":")[0] for line in wide} == {"pretrain/loss.py"}


def test_prototypes_that_are_shared_are_summed_or_gathered_and_nothing_else() -> None:
    is_donated, collectives, _, _ = read(SMALL, 2)
    assert is_donated and {*collectives} <= {"all-reduce", "all-gather"}


def test_a_dry_run_tells_what_the_program_would_be(tmp_path: Path) -> None:
    world = tmp_path / "world"
    tiny = ["--identities", "8", "--test-identities", "2", "--distractors", "2", "--height", "64", "--width", "32"]
    subprocess.run([*CION, "data", "synth", str(world), *tiny], check=True, capture_output=True)
    run = ["pretrain", "debug", "--data", str(world), "--out", str(tmp_path / "run"), "--dry-run", "--for", "v5e:2x2"]
    quick = ["--backbone", SMALL, "--precision", "bfloat16"]  # float32 is six products, and takes minutes to compile
    process = subprocess.run([*CION, *run, *quick], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert "| a device (4 x TPU v5 lite) | GB |" in process.stdout
    assert "| all-reduce |" in process.stdout and "Roofline: " in process.stdout
    assert not (tmp_path / "run").exists()
    assert process.stderr.count("compiling the step") == 2


def test_embedding_is_described_too(tmp_path: Path) -> None:
    make = """
import sys, jax
from pathlib import Path
from cion_jax.models.zoo import backbone
from cion_jax.weights.file import Weights, save
body = backbone(sys.argv[2], image_size=(64, 32))
save(Path(sys.argv[1]), Weights(body, body.init(jax.random.key(0))))
"""
    weights = tmp_path / "weights.safetensors"
    subprocess.run([sys.executable, "-c", make, str(weights), SMALL], check=True, capture_output=True)
    embed = [*CION, "embed", str(weights), str(tmp_path), str(tmp_path / "out"), "--for", "v5e:2x2", "--batch", "30"]
    process = subprocess.run(embed, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith(f"{SMALL}, 32 images on 4 x TPU v5 lite")
    assert "| none |" in process.stdout and "state" not in process.stdout and not (tmp_path / "out").exists()
