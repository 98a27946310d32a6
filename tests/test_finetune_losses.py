"""Losses of fine-tuning: golden values of the published ones, and what must hold for any batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cion_jax.finetune.losses import circle_logits, cross_entropy, hardest_distances, triplet_loss, unit
from golden_weights import golden

Loss = Callable[..., jax.Array]
RECORDED = golden("finetune/losses")
LABELS = RECORDED["targets"]


def triplet(features: Any, labels: Any = LABELS, margin: float | None = None) -> jax.Array:
    return triplet_loss(*hardest_distances(features, labels), margin)


def circle(features: Any, weights: Any) -> jax.Array:
    return cross_entropy(circle_logits(features, weights, LABELS), LABELS, 0.1)


#: Each recorded loss, and the names of its inputs; `fr` is as MGN has it, `tr` as bnneck.
LOSSES: dict[str, tuple[Loss, list[str]]] = {
    "fr_ce_eps01": (lambda logits: cross_entropy(logits, LABELS, 0.1), ["logits"]),
    "fr_ce_eps0": (lambda logits: cross_entropy(logits, LABELS), ["logits"]),
    "fr_circle_ce": (circle, ["feat", "weight"]),
    "fr_circle_ce2": (circle, ["feat_circle2", "weight"]),
    "fr_triplet_soft": (triplet, ["feat"]),
    "fr_triplet_soft_dup": (triplet, ["feat_dup"]),
    "fr_triplet_m03": (lambda features: triplet(features, margin=0.3), ["feat"]),
    "fr_triplet_soft_norm": (lambda features: triplet(unit(features)), ["feat"]),
    "tr_triplet_soft": (triplet, ["feat"]),
    "tr_triplet_soft_dup": (triplet, ["feat_dup"]),
    "tr_ce": (lambda logits: cross_entropy(logits, LABELS), ["logits"]),
    "tr_total": (lambda logits, features: cross_entropy(logits, LABELS) + triplet(features), ["logits", "feat"]),
}


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def assert_close(result: Any, expected: np.ndarray, relative: float) -> None:
    """Each number differs by at most a fraction of their root mean square."""
    np.testing.assert_allclose(result, expected, rtol=0, atol=relative * np.sqrt(np.square(expected).mean()))


@pytest.mark.parametrize(("x64", "of_value", "of_gradient"), [(True, 1e-12, 1e-11), (False, 1e-6, 1e-5)])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_gradients_equal_the_golden_ones(name: str, x64: bool, of_value: float, of_gradient: float) -> None:
    """float32 within ten times the recorded noise: 1e-7 of values, 1e-6 of gradients."""
    loss, inputs = LOSSES[name]
    with jax.enable_x64(x64):
        values = [RECORDED[key].astype(np.float64 if x64 else np.float32) for key in inputs]
        result, gradients = jax.jit(jax.value_and_grad(loss, tuple(range(len(values)))))(*values)
    assert_close(result, RECORDED[f"{name}_f64"], of_value)
    for number, gradient in enumerate(gradients):
        assert_close(gradient, RECORDED[f"{name}_grad{number}_f64"], of_gradient)


@pytest.mark.parametrize(("features", "name"), [("feat", "tr_dist"), ("feat_dup", "tr_dup_dist")])
def test_hardest_distances_equal_the_golden_ones(features: str, name: str) -> None:
    with jax.enable_x64(True):
        positives, negatives = hardest_distances(RECORDED[features].astype(np.float64), LABELS)
    assert_close(positives, RECORDED[f"{name}_ap_f64"], 1e-12)
    assert_close(negatives, RECORDED[f"{name}_an_f64"], 1e-12)


def test_circle_logits_equal_the_golden_ones() -> None:
    with jax.enable_x64(True):
        features, weights = (RECORDED[key].astype(np.float64) for key in ("feat", "weight"))
        assert_close(circle_logits(features, weights, LABELS), RECORDED["fr_circle_logits_f64"], 1e-12)


def test_partners_are_sought_in_the_whole_batch() -> None:
    """As recorded by one process that had all 64 rows; four with 16 rows each had gradients that differ by 64 %."""
    recorded = golden("finetune/losses_ddp")
    with jax.enable_x64(True):
        features = recorded["feat"].astype(np.float64)
        loss, gradient = jax.value_and_grad(triplet)(features, recorded["targets"])
    assert_close(loss, recorded["single_loss_f64"], 1e-12)
    assert_close(gradient, recorded["single_grad_f64"], 1e-11)


def test_hardest_partners_by_hand_where_identities_have_different_numbers_of_images() -> None:
    features, labels = draw(9, 4), np.array([3, 0, 3, 3, 7, 0, 3, 7, 5])
    distances = np.linalg.norm(features[:, None] - features, axis=-1)
    positives, negatives = hardest_distances(features, labels)
    for i, label in enumerate(labels):
        np.testing.assert_allclose(positives[i], distances[i, labels == label].max(), rtol=1e-5, atol=3e-3)
        np.testing.assert_allclose(negatives[i], distances[i, labels != label].min(), rtol=1e-5)


def test_equal_images_neither_pull_nor_push_each_other() -> None:
    """At a distance of zero the slope of a root would be infinite."""
    twice = np.repeat(draw(4, 8), 2, axis=0)
    pull = jax.grad(lambda x: hardest_distances(x, np.repeat(np.arange(4), 2))[0].sum())(twice)
    assert np.abs(pull).max() < 1e-2
    with jax.enable_x64(True):
        push = jax.grad(lambda x: hardest_distances(x, np.arange(8))[1].sum())(twice.astype(np.float64))
    np.testing.assert_array_equal(push, 0)


def test_a_batch_of_one_identity_has_no_triplets() -> None:
    assert np.isposinf(hardest_distances(draw(6, 4), np.zeros(6, int))[1]).all()
    loss, gradient = jax.value_and_grad(triplet)(draw(6, 4), np.zeros(6, int))
    assert loss == 0 and not gradient.any()
    assert triplet(draw(6, 4), np.zeros(6, int), margin=0.3) == 0


def test_smoothed_targets_sum_to_one_over_the_other_classes() -> None:
    logits, labels = draw(5, 7), np.array([0, 6, 2, 2, 3])
    targets = np.where(labels[:, None] == np.arange(7), 0.8, 0.2 / 6)
    expected = -(targets * jax.nn.log_softmax(logits)).sum(1).mean()
    np.testing.assert_allclose(cross_entropy(logits, labels, 0.2), expected, rtol=1e-5)


def test_circle_logits_pass_no_gradient_through_their_factors() -> None:
    """Then the slope of a logit in its cosine is the factor alone."""
    features, weights = draw(6, 5), np.eye(5, dtype=np.float32)
    labels = np.arange(6) % 5
    cosines = np.asarray(unit(features))
    factors = np.where(labels[:, None] == np.arange(5), 1.35 - cosines, np.maximum(0, 0.35 + cosines))
    _, vjp = jax.vjp(lambda cosines: circle_logits(cosines, weights, labels), cosines)
    ones = np.ones((6, 5), np.float32)
    through_unit = jax.vjp(unit, cosines)[1](64 * factors * ones)[0]
    np.testing.assert_allclose(vjp(ones)[0], through_unit, rtol=1e-4, atol=1e-4)


def test_vectors_of_zeros_have_no_direction_and_a_finite_gradient() -> None:
    rows = np.concatenate([np.zeros((1, 5), np.float32), draw(2, 5)])
    np.testing.assert_allclose(np.linalg.norm(unit(rows), axis=1), [0, 1, 1], rtol=1e-6)
    weights, labels = draw(4, 5), np.array([0, 1, 2])
    gradient = jax.grad(lambda x: cross_entropy(circle_logits(x, weights, labels), labels))(rows)
    assert np.isfinite(gradient).all()


def test_losses_of_bfloat16_are_computed_in_float32() -> None:
    features, logits, labels = draw(6, 5), draw(6, 4), np.arange(6) % 3
    for loss, values in (
        (lambda x: triplet(x, labels), features),
        (lambda x: cross_entropy(x, labels, 0.1), logits),
        (lambda x: circle_logits(x, logits.T[:, :5], labels), features),
    ):
        rounded = jnp.asarray(values, jnp.bfloat16)
        np.testing.assert_array_equal(loss(rounded), loss(rounded.astype(jnp.float32)))
