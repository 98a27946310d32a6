"""Losses of supervised fine-tuning: cross entropy, circle logits, triplets of the hardest images.

All are over the whole batch: an image's hardest partners are sought among all images, on whatever device they are.
Everything is computed in float32 or wider. B is the number of images, C of identities, D the width of a feature;
labels are the numbers of identities, 0 to C - 1.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from cion_jax.models.norms import at_least_float32

#: Distances and cosines are small differences of large sums: TPUs would round to bfloat16, GPUs to TF32.
precise_product = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


def unit(vectors: Array) -> Array:
    """Rows made 1 long, in float32 or wider; rows of zeros stay zeros."""
    wide = at_least_float32(vectors)
    squared = (wide * wide).sum(-1, keepdims=True)
    return wide * jax.lax.rsqrt(jnp.maximum(squared, 1e-24))


def cross_entropy(logits_BxC: Array, labels_B: Array, smoothing: float = 0.0) -> Array:
    """Mean cross entropy with targets of 1 - smoothing for the label and smoothing / (C - 1) for each other class."""
    logs_BxC = jax.nn.log_softmax(at_least_float32(logits_BxC))
    own_B = _pick(logs_BxC, labels_B)
    if not smoothing:
        return -own_B.mean()  # logits of -inf stand for classes that do not exist, and must not meet a factor of 0
    others_B = logs_BxC.sum(-1) - own_B
    return -((1 - smoothing) * own_B + smoothing / (logs_BxC.shape[-1] - 1) * others_B).mean()


def circle_logits(
    features_BxD: Array, weights_CxD: Array, labels_B: Array, *, margin: float = 0.35, scale: float = 64.0
) -> Array:
    """Logits for a cross entropy in training, as in "Circle Loss" (Sun et al., CVPR 2020).

    With s the cosine of a feature and a row of weights, and factors [x] = max(x, 0) through which no gradient goes:

        label           scale [1 + margin - s] (s - (1 - margin))
        other classes   scale [s + margin] (s - margin)
    """
    cosine_BxC = precise_product(unit(features_BxD), unit(weights_CxD).T)
    still_BxC = jax.lax.stop_gradient(cosine_BxC)
    own_BxC = jax.nn.relu(1 + margin - still_BxC) * (cosine_BxC - (1 - margin))
    others_BxC = jax.nn.relu(still_BxC + margin) * (cosine_BxC - margin)
    is_own_BxC = labels_B[:, None] == jnp.arange(len(weights_CxD))
    return scale * jnp.where(is_own_BxC, own_BxC, others_BxC)


def hardest_distances(features_BxD: Array, labels_B: Array) -> tuple[Array, Array]:
    """Euclidean distances from each image to its hardest positive and its hardest negative, (B,) each.

    The hardest positive is the farthest image of the same identity, the image itself included; the hardest negative is
    the nearest of another identity, infinitely far where the batch has one identity only.
    """
    wide_BxD = at_least_float32(features_BxD)
    lengths_B = (wide_BxD * wide_BxD).sum(-1)
    squared_BxB = lengths_B[:, None] + lengths_B - 2 * precise_product(wide_BxD, wide_BxD.T)  # |x|^2 + |y|^2 - 2 x.y
    distances_BxB = jnp.sqrt(jnp.maximum(squared_BxB, 1e-12))  # no gradient between equal features, where it is steep
    is_same_BxB = labels_B[:, None] == labels_B
    positives_BxB = jnp.where(is_same_BxB, distances_BxB, 0)
    negatives_BxB = jnp.where(is_same_BxB, jnp.inf, distances_BxB)
    return _pick(positives_BxB, positives_BxB.argmax(1)), _pick(negatives_BxB, negatives_BxB.argmin(1))


def triplet_loss(positives_B: Array, negatives_B: Array, margin: float | None = None) -> Array:
    """Mean over images of [positive - negative + margin], or without a margin of log(1 + exp(positive - negative)).

    The distances are those of `hardest_distances`; of unit vectors if they were given.
    """
    differences_B = positives_B - negatives_B
    if margin is None:
        return jax.nn.softplus(differences_B).mean()
    return jax.nn.relu(differences_B + margin).mean()


def _pick(rows_BxN: Array, columns_B: Array) -> Array:
    """A number of each row. Where several are largest it has the gradient alone; a maximum would share it out."""
    return jnp.take_along_axis(rows_BxN, columns_B[:, None], axis=1)[:, 0]
