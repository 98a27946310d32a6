"""Golden values of fine-tuning: weights by the rule, and images on which networks differ."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from cion_jax.weights.mapping import state_dict
from golden_weights import manifest, weight


def rule_state(name: str, hashed: Callable[[str], str]) -> dict[str, np.ndarray]:
    """The state_dict of a manifest, where `hashed` says of each key which one the rule is asked for."""
    rows = manifest(name)["keys"]
    return {key: weight(hashed(key), tuple(shape)) for key, shape, dtype, _ in rows if dtype == "float32"}


def torch_names(tree: Any, order: Sequence[str], collection: str = "params") -> dict[str, np.ndarray]:
    """The leaves of one collection by PyTorch's names, without what follows from others."""
    state = state_dict({collection: jax.tree.map(np.asarray, tree)}, order)
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


def close(result: Any, expected: Any, relative: float) -> None:
    """Off by at most a fraction of the root mean square."""
    scale = np.sqrt(np.mean(np.square(expected)))
    np.testing.assert_allclose(np.asarray(result, np.float64), expected, rtol=0, atol=relative * scale)


def lengths(arrays: dict[str, np.ndarray], names: Sequence[str]) -> list[float]:
    return [float(np.linalg.norm(arrays[key].astype(np.float64))) for key in names]


def differences(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {key: value - other[key] for key, value in one.items()}


def blocks(seed: int, identities: Sequence[int], height: int, width: int, dtype: Any = np.float32) -> np.ndarray:
    """Images (N, height, width, 3): a pattern of 16x16 blocks for each identity, one for each image, noise."""
    random = np.random.RandomState(seed)
    size = height // 16, width // 16, 3
    base = np.stack([np.random.RandomState(1000 + int(number)).standard_normal(size) for number in identities])
    own = random.standard_normal((len(identities), *size))
    noise = random.standard_normal((len(identities), height, width, 3))
    return (np.kron(base + 0.7 * own, np.ones((1, 16, 16, 1))) + 0.3 * noise).astype(dtype)
