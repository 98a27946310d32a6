"""Average query expansion: what a query finds first helps it to ask again (Chum et al., "Total Recall", ICCV 2007).

query' = the unit vector of (query + the sum of its nearest in the gallery)
"""

import numpy as np

from cion_jax.errors import UserError
from cion_jax.evaluate.distances import check
from cion_jax.evaluate.embed import not_unit
from cion_jax.evaluate.nearest import nearest


def expanded(query: np.ndarray, gallery: np.ndarray, count: int, *, block: int = 256) -> np.ndarray:
    """The queries, each moved towards its nearest by cosine, float32 (Q, D).

    Args:
        query: Features of the queries, unit vectors (Q, D).
        gallery: Features of the gallery, unit vectors (G, D).
        count: How many of the gallery help a query, from 0 to G; 0 leaves the queries as they are.
        block: Queries that are looked at together; beside the features nothing is larger than block x G.
    """
    check(query, gallery)
    for what, features in (("query", query), ("gallery", gallery)):
        broken = not_unit(features)
        if len(broken):
            raise UserError(f"{what}: the feature of image {broken[0]} is no unit vector; divide it by its length")
    if not 0 <= count <= len(gallery):
        raise UserError(f"expansion by {count}: must be from 0 to {len(gallery)}, the size of the gallery")
    total = np.array(query, np.float32)
    if count == 0:
        return total
    for column in nearest(query, gallery, count, block=block).index.T:
        total += gallery[column]
    return total / np.linalg.norm(total, axis=1, keepdims=True)
