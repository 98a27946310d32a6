"""Rates over a run: the published values, and no jump where the number of batches changes."""

import numpy as np
import pytest

from cion_jax.config import Optimization
from cion_jax.pretrain.schedules import StepValues, values_at
from golden_weights import golden


def run(settings: Optimization, images: int, batches: list[int]) -> list[StepValues]:
    """The rates of each step of epochs with so many batches."""
    epochs = len(batches)
    return [values_at(settings, images, epochs, e, b, count) for e, count in enumerate(batches) for b in range(count)]


def test_the_published_schedules() -> None:
    recorded, result = golden("schedules"), run(Optimization(), 960, [7] * 100)
    for name, values in {
        "lr": [now.learning_rate for now in result],
        "wd": [now.weight_decay for now in result],
        "momentum": [1 - now.ema_step for now in result],
    }.items():
        np.testing.assert_allclose(values, recorded[name], rtol=1e-12)
    assert [now.frozen for now in result] == [True] * 7 + [False] * 693


@pytest.mark.parametrize("change", [5, 40])
def test_nothing_jumps_where_the_number_of_batches_changes(change: int) -> None:
    """In the middle of the warm-up and after it: steps become a quarter as long, and so do their changes."""
    batches = [10] * change + [40] * (60 - change)
    result = np.array([now[:3] for now in run(Optimization(), 960, batches)])
    moves = np.abs(np.diff(result, axis=0))
    edge = 10 * change
    assert (moves[edge - 1] <= 1.1 * moves[edge - 2] + 1e-12).all()
    np.testing.assert_allclose(moves[edge], moves[edge - 2] / 4, rtol=0.15)


def test_rates_end_where_they_should() -> None:
    first, *_, last = run(Optimization(warmup=0), 256, [1000] * 4)
    np.testing.assert_allclose([*first[:2], 1 - first.ema_step], [5e-4, 0.04, 0.996])
    np.testing.assert_allclose([*last[:2], 1 - last.ema_step], [1e-6, 0.4, 1], rtol=1e-3)


def test_a_warm_up_of_one_step_and_a_run_of_nothing_but_warm_up() -> None:
    assert [now.learning_rate for now in run(Optimization(warmup=1), 256, [1, 1])] == [0.0, 5e-4]
    rising = [now.learning_rate for now in run(Optimization(warmup=2), 256, [5, 5])]
    np.testing.assert_allclose(rising, np.linspace(0, 5e-4, 10))


def test_the_teacher_is_renewed_by_less_than_float32_could_tell_from_one() -> None:
    last = run(Optimization(), 960, [4000] * 100)[-1]
    assert np.float32(1 - last.ema_step) == 1 and 0 < np.float32(last.ema_step) < 1e-12
