"""Parts of a batch add up to the whole, and activations that are computed again are the same."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np
import pytest

from cion_jax.models.zoo import ZOO
from cion_jax.pretrain.state import init_state
from cion_jax.pretrain.step import StepConfig, gradients
from cion_jax.run.pretraining import model_of
from cion_jax.run.sharding import make_mesh
from tiny import FAMILY, SETTINGS


@pytest.fixture(scope="module")
def slopes() -> Callable[..., Any]:
    """Gradients of random crops, in so many parts: from part `first` on, with what was there before."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ZOO, "tiny", FAMILY)
        models = {remat: model_of(replace(SETTINGS, remat=remat)) for remat in (False, True)}
    state = init_state(models[False], SETTINGS.head, SETTINGS.optimization, jax.random.key(3))
    sizes = (2, 8, 2, 32, 16, 3), (2, 8, 1, 16, 8, 3)
    crops = [np.random.default_rng(n).standard_normal(size).astype(np.float32) for n, size in enumerate(sizes)]

    @partial(jax.jit, static_argnames="remat")
    def slope(statistics: Any, parts: Any, start: int, remat: bool) -> Any:
        def views(part: Any, number: Any) -> Any:
            return part, jax.random.fold_in(jax.random.key(7), number + start)

        config = StepConfig(SETTINGS, models[remat], 2, make_mesh(1, 1))
        return gradients(config, state._replace(batch_stats=statistics), parts, views)

    def run(parts: slice, statistics: Any = state.batch_stats, remat: bool = False) -> Any:
        return slope(statistics, [crop[parts] for crop in crops], parts.start, remat)

    return run


def near(found: Any, expected: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6 * np.abs(b).max()), found, expected)


@pytest.mark.slow
def test_parts_of_a_batch_add_up(slopes: Callable[..., Any]) -> None:
    both, statistics, center, metrics = slopes(slice(0, 2))
    first, moved, *ends = slopes(slice(0, 1))
    second, last, *others = slopes(slice(1, 2), moved)
    near(both, jax.tree.map(lambda a, b: (a + b) / 2, first, second))
    near(statistics, last)
    near([center, metrics], jax.tree.map(lambda a, b: (a + b) / 2, ends, others))


@pytest.mark.slow
def test_remat_changes_nothing_but_memory(slopes: Callable[..., Any]) -> None:
    near(slopes(slice(0, 1), remat=True), slopes(slice(0, 1)))
