"""The benchmark of a step: its parts are a step, and its tables name them all."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from cion_jax.models.zoo import ZOO
from cion_jax.pretrain.flops import step_flops
from cion_jax.pretrain.state import state_specs
from cion_jax.pretrain.step import StepConfig, gradients
from cion_jax.run.pretraining import model_of
from cion_jax.run.sharding import make_mesh, shardings
from experiments.benchmarks import step as bench_step
from experiments.benchmarks.options import StepOptions
from experiments.benchmarks.step import AUGMENT, FORWARD, HEAD, STUDENT, TEACHER, UPDATE, WHOLE
from tiny import FAMILY, SETTINGS


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ZOO, "tiny", FAMILY)


def flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def test_parts_one_after_the_other_are_a_step() -> None:
    """Or their times would say nothing about it: same gradients, statistics, center and metrics, with drop path."""
    config = StepConfig(SETTINGS, model_of(SETTINGS), 4, make_mesh(1, 1))
    key = jax.random.key(3)
    state = bench_step.inputs(config)[0]
    part = bench_step.parts(config, shardings(config.mesh, state_specs(state)))
    random = np.random.default_rng(0)
    crops = [
        random.standard_normal((SETTINGS.batch, count, *size, 3), np.float32)
        for count, size in ((2, SETTINGS.crops.global_size), (1, SETTINGS.crops.local_size))
    ]

    @jax.jit
    def whole(state: Any, crops: Any) -> Any:
        return gradients(config, state, jax.tree.map(lambda leaf: leaf[None], crops), lambda part, _: (part, key))

    grads, *others = whole(state, crops)
    teacher, teacher_stats = part.teacher_forward(state, crops)
    features, _ = part.student_forward(state.student["backbone"], state, crops, key)
    d_head, d_features, center, metrics = part.loss_gradients(state, teacher, features)
    d_backbone, student_stats = part.student_gradients(state, crops, key, d_features)
    assert min(np.linalg.norm(flat(each)) for each in (grads["backbone"], grads["head"])) > 1e-3
    np.testing.assert_allclose(flat({"backbone": d_backbone, "head": d_head}), flat(grads), rtol=1e-3, atol=1e-6)
    batch_stats = {"student": student_stats, "teacher": teacher_stats}
    np.testing.assert_allclose(flat([batch_stats, center, metrics]), flat(others), rtol=1e-4, atol=1e-6)


def test_the_tables_name_every_part_and_their_operations_are_those_of_a_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flop: dict[str, float] = {}
    make = bench_step.programs

    def programs(*inputs: Any) -> Any:
        works = make(*inputs)
        flop.update({name: work.flop for name, work in works.items()})
        return works

    monkeypatch.setattr(bench_step, "programs", programs)
    path = tmp_path / "own.py"
    path.write_text("from tiny import SETTINGS as settings\n")
    bench_step.main(str(path), StepOptions(batch=8, rounds=1, steps=2))
    printed = capsys.readouterr().out
    assert "tiny, 8 images of 32x16, 2 crops of 32x16, 1 of 16x8, float32, K = 4, 64 prototypes" in printed
    rows = {cells[0]: cells[1:] for cells in (line[2:-2].split(" | ") for line in printed.splitlines() if "|" in line)}
    parts = [AUGMENT, TEACHER, STUDENT, HEAD, UPDATE]
    assert {*parts, FORWARD, "whole step", "memory, measured"} < rows.keys()
    assert sum(float(rows[part][2].rstrip("%")) for part in parts) == pytest.approx(100, abs=0.3)
    assert re.fullmatch(r"[\d,.]+ images/s \([\d,.]+ to [\d,.]+\), [\d,.]+ ms", rows["whole step"][0])

    settings = replace(SETTINGS, batch=8)
    assert sum(flop[part] for part in parts) == flop[WHOLE] == step_flops(settings, model_of(settings))
    assert flop[STUDENT] == 3 * flop[FORWARD]
    hidden, bottleneck = settings.head.hidden, settings.head.bottleneck
    of_head = hidden * (8 + hidden + bottleneck) + bottleneck * settings.head.prototypes
    assert flop[HEAD] == 2 * settings.batch * of_head * (2 * 4 + 1 * 3)  # two views cost four forwards, one costs three
