"""The loss as it was published: loops over pairs of views and pairs of instances. To check against, at small sizes."""

import numpy as np


def plain(student_BxVxC: np.ndarray, teacher_Bx2xC: np.ndarray, center_C: np.ndarray, *, instances: int) -> np.floating:
    """The loss from logits, pair by pair."""
    targets = np.exp(_log_softmax((teacher_Bx2xC - center_C) / 0.04))
    logs = _log_softmax(student_BxVxC / 0.1)
    views = [(u, v) for u in range(2) for v in range(logs.shape[1]) if u != v]
    return np.mean([_pair(targets[:, u], logs[:, v], instances) for u, v in views])


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def _pair(targets_BxC: np.ndarray, logs_BxC: np.ndarray, instances: int) -> np.floating:
    """One view teaches one other: each image by itself, then each slot of an identity by every other slot."""
    total = -(targets_BxC * logs_BxC).sum(-1).mean()
    for i in range(instances):
        for j in range(instances):
            if i != j:
                total = total - (targets_BxC[i::instances] * logs_BxC[j::instances]).sum(-1).mean()
    return total / (instances * (instances - 1) + 1)
