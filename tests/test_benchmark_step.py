"""The benchmark of a step: its parts are a step, and its tables name them all."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from cion_jax.models.zoo import ZOO
from cion_jax.pretrain.state import mesh_of, placement
from cion_jax.pretrain.step import StepConfig, gradients
from cion_jax.run.plan import flops, model_of
from experiments.benchmarks import step as bench_step
from experiments.benchmarks.step import AUGMENT, FORWARD, HEAD, STUDENT, TEACHER, UPDATE
from tiny import FAMILY, SETTINGS


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ZOO, "tiny", FAMILY)


def flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def test_parts_one_after_the_other_are_a_step() -> None:
    """Or their times would say nothing about it: same gradients, statistics, center and metrics, with drop path."""
    config, key = StepConfig(SETTINGS, model_of(SETTINGS), 4, mesh_of(1, 1)), jax.random.key(3)
    state = bench_step.inputs(config)[0]
    apart, random = bench_step.parts(config, placement(config.mesh, state)), np.random.default_rng(0)
    crops = [
        random.standard_normal((SETTINGS.batch, count, *size, 3), np.float32)
        for count, size in ((2, SETTINGS.crops.global_size), (1, SETTINGS.crops.local_size))
    ]

    @jax.jit
    def whole(state: Any, crops: Any) -> Any:
        return gradients(config, state, jax.tree.map(lambda leaf: leaf[None], crops), lambda part, _: (part, key))

    slopes, *others = whole(state, crops)
    teacher, old = apart.teach(state, crops)
    seen, _ = apart.look(state.student["backbone"], state, crops, key)
    top, below, *found = apart.judge(state, teacher, seen)
    body, moved = apart.learn(state, crops, key, below)
    assert min(np.linalg.norm(flat(part)) for part in (slopes["backbone"], slopes["head"])) > 1e-3
    np.testing.assert_allclose(flat({"backbone": body, "head": top}), flat(slopes), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(flat([{"student": moved, "teacher": old}, *found]), flat(others), rtol=1e-4, atol=1e-6)


def test_the_tables_name_every_part_and_their_operations_are_those_of_a_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    needed: dict[str, float] = {}
    make = bench_step.contestants

    def contestants(*inputs: Any) -> Any:
        found = make(*inputs)
        needed.update(found[1])
        return found

    monkeypatch.setattr(bench_step, "contestants", contestants)
    path = tmp_path / "own.py"
    path.write_text("from tiny import SETTINGS as settings\n")
    bench_step.main(str(path), batch=8, rounds=1, steps=2)
    printed = capsys.readouterr().out
    assert "tiny, 8 images of 32x16, 2 crops of 32x16, 1 of 16x8, float32, K = 4, 64 prototypes" in printed
    rows = {cells[0]: cells[1:] for cells in (line[2:-2].split(" | ") for line in printed.splitlines() if "|" in line)}
    parts = [AUGMENT, TEACHER, STUDENT, HEAD, UPDATE]
    assert {*parts, FORWARD, "whole step", "memory, measured"} < rows.keys()
    assert sum(float(rows[part][2].rstrip("%")) for part in parts) == pytest.approx(100, abs=0.3)
    assert re.fullmatch(r"[\d,.]+ images/s \([\d,.]+ to [\d,.]+\), [\d,.]+ ms", rows["whole step"][0])

    settings = replace(SETTINGS, batch=8)
    assert sum(needed[part] for part in parts) == flops(settings, model_of(settings))
    assert needed[STUDENT] == 3 * needed[FORWARD]
    hidden, bottleneck = settings.head.hidden, settings.head.bottleneck
    top = hidden * (8 + hidden + bottleneck) + bottleneck * settings.head.prototypes
    assert needed[HEAD] == 2 * settings.batch * top * (2 * 4 + 1 * 3)  # two views cost four forwards, one costs three
