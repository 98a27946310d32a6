"""The memory of cluster contrast: golden values over five steps, and its two ways to follow by hand."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from cion_jax.finetune.losses import unit
from cion_jax.finetune.memory import cluster_loss, update_hard, update_plain
from golden_weights import golden

UPDATES: dict[str, Callable[..., jax.Array]] = {"plain": update_plain, "hard": update_hard}


def arrays(rows: int = 6, images: int = 16, width: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A memory, features that are not unit vectors, and labels, of which the last row has none; float64."""
    random = np.random.default_rng(0)
    memory = random.standard_normal((rows, width))
    features = 3 * random.standard_normal((images, width))
    return memory / np.linalg.norm(memory, axis=1, keepdims=True), features, random.integers(0, rows - 1, images)


def normalise(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize(("x64", "relative"), [(True, (1e-12, 1e-12, 1e-12)), (False, (4e-6, 1e-4, 3e-6))])
@pytest.mark.parametrize("name", UPDATES)
def test_five_steps_equal_the_golden_ones(name: str, x64: bool, relative: tuple[float, float, float]) -> None:
    """Losses, gradients and memories, each as a fraction of their root mean square; float32 within ten times the
    recorded noise. The reference's momentum is float32(0.2), but 1 - 0.2 there is exactly four times that."""
    recorded = golden("finetune/cluster_memory")
    losses, gradients, memories = [], [], []
    with jax.enable_x64(x64):
        dtype = np.float64 if x64 else np.float32
        memory = unit(recorded["centers"].astype(dtype))
        for features, labels in zip(recorded["inputs"].astype(dtype), recorded["targets"], strict=True):
            step = jax.value_and_grad(cluster_loss, argnums=1, has_aux=True)
            (loss, _), gradient = step(memory, features, labels)
            memory = UPDATES[name](memory, features, labels)
            losses.append(loss)
            gradients.append(gradient)
            memories.append(memory)
    for part, values, fraction in zip(
        ("loss", "grad", "features"), (losses, gradients, memories), relative, strict=True
    ):
        expected = recorded[f"{name}_{part}_f64"]
        tolerance = fraction * np.sqrt(np.square(expected).mean())
        np.testing.assert_allclose(np.asarray(values), expected, rtol=0, atol=tolerance, err_msg=part)


def test_plain_follows_image_by_image_in_the_order_of_the_batch() -> None:
    memory, features, labels = arrays()
    with jax.enable_x64(True):
        result = update_plain(memory, features, labels, momentum=0.3)
    for feature, label in zip(normalise(features), labels, strict=True):
        memory[label] = normalise(0.3 * memory[label] + 0.7 * feature)
    np.testing.assert_allclose(result, memory, rtol=1e-12)


def test_hard_follows_the_least_similar_image_of_each_cluster_once() -> None:
    memory, features, labels = arrays()
    with jax.enable_x64(True):
        result = update_hard(memory, features, labels, momentum=0.3)
    expected = memory.copy()
    for label in np.unique(labels):
        mine = normalise(features)[labels == label]
        expected[label] = normalise(0.3 * memory[label] + 0.7 * mine[np.argmin(mine @ memory[label])])
    np.testing.assert_allclose(result, expected, rtol=1e-12)


def test_of_equally_similar_images_hard_takes_the_first() -> None:
    memory = np.array([[1.0, 0.0, 0.0]])
    features = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    with jax.enable_x64(True):
        result = update_hard(memory, features, np.zeros(3, int), momentum=0.5)
    np.testing.assert_allclose(result[0], np.array([1, 1, 0]) / np.sqrt(2))


@pytest.mark.parametrize("name", UPDATES)
def test_clusters_that_are_not_in_the_batch_stay(name: str) -> None:
    memory, features, labels = arrays()
    result = UPDATES[name](memory.astype(np.float32), features.astype(np.float32), labels)
    moved = (np.asarray(result) != memory.astype(np.float32)).any(1)
    np.testing.assert_array_equal(moved, np.isin(np.arange(len(memory)), labels))


@pytest.mark.parametrize("name", UPDATES)
def test_rows_of_zeros_are_no_clusters(name: str) -> None:
    memory, features, labels = arrays()
    larger = np.concatenate([memory, np.zeros((3, 5))])

    def step(memory: Any) -> Any:
        (loss, logits), gradient = jax.value_and_grad(cluster_loss, argnums=1, has_aux=True)(memory, features, labels)
        return loss, logits[:, :6], gradient, UPDATES[name](memory, features, labels)

    with jax.enable_x64(True):
        *expected, memory_after = step(memory)
        *result, larger_after = step(larger)
    for a, b in zip(result, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    np.testing.assert_allclose(larger_after, np.concatenate([memory_after, np.zeros((3, 5))]), rtol=1e-12)


def test_the_loss_is_the_cross_entropy_of_similarities_and_leaves_the_memory_alone() -> None:
    memory, features, labels = arrays()
    with jax.enable_x64(True):
        loss, logits = cluster_loss(memory, features, labels, temperature=0.5)
        gradient, _ = jax.grad(cluster_loss, has_aux=True)(memory, features, labels)
    expected = normalise(features) @ memory.T / 0.5
    np.testing.assert_allclose(logits, expected, rtol=1e-12)
    own = np.take_along_axis(expected, labels[:, None], axis=1)[:, 0]
    np.testing.assert_allclose(loss, (np.log(np.exp(expected).sum(1)) - own).mean(), rtol=1e-12)
    assert not gradient.any()
