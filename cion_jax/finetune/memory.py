"""The cluster memory of "Cluster Contrast for Unsupervised Person Re-Identification" (Dai et al., ACCV 2022).

A row m of length 1 for each cluster. An image's feature x, made 1 long, is classified by x.m / temperature; no gradient
reaches the memory. After each step the memory follows the features that it has just seen:

    m <- unit(momentum m + (1 - momentum) x)

Rows of zeros are no clusters, so that a memory of one size serves epochs with more or fewer of them, and the step need
not be compiled anew. B is the number of images, C of rows, D the width of a feature; labels are numbers of rows.
"""

import jax
import jax.numpy as jnp
from jax import Array

from cion_jax.finetune.losses import cross_entropy, precise_product, unit


def cluster_loss(
    memory_CxD: Array, features_BxD: Array, labels_B: Array, *, temperature: float = 0.05
) -> tuple[Array, Array]:
    """The mean cross entropy, and the logits (B, C), which are -inf for rows that are no clusters."""
    memory_CxD = jax.lax.stop_gradient(memory_CxD)
    logits_BxC = precise_product(unit(features_BxD), memory_CxD.T) / temperature
    logits_BxC = jnp.where(memory_CxD.any(1), logits_BxC, -jnp.inf)
    return cross_entropy(logits_BxC, labels_B), logits_BxC


def update_plain(memory_CxD: Array, features_BxD: Array, labels_B: Array, *, momentum: float = 0.2) -> Array:
    """The memory after its rows followed one image after the other, so that a cluster's last image counts most.

    `momentum` is the share of the old row that stays.
    """

    def follow(memory_CxD: Array, image: tuple[Array, Array]) -> tuple[Array, None]:
        feature_D, label = image
        row_D = momentum * memory_CxD[label] + (1 - momentum) * feature_D
        return memory_CxD.at[label].set(unit(row_D)), None

    return jax.lax.scan(follow, memory_CxD, (unit(features_BxD), labels_B))[0]


def update_hard(memory_CxD: Array, features_BxD: Array, labels_B: Array, *, momentum: float = 0.2) -> Array:
    """The memory after each row followed the least similar of its images in the batch, the first of equals.

    `momentum` is the share of the old row that stays.
    """
    features_BxD = unit(features_BxD)
    is_own_CxB = jnp.arange(len(memory_CxD))[:, None] == labels_B
    similarity_CxB = jnp.where(is_own_CxB, precise_product(memory_CxD, features_BxD.T), jnp.inf)
    hardest_CxD = features_BxD[similarity_CxB.argmin(1)]
    rows_CxD = unit(momentum * memory_CxD + (1 - momentum) * hardest_CxD)
    return jnp.where(is_own_CxB.any(1, keepdims=True), rows_CxD, memory_CxD)
