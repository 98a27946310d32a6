"""The five numbers that say where an image comes from and whom it shows; and labellings, files of who is who."""

import json
from pathlib import Path

import numpy as np

from cion_jax.errors import UserError
from cion_jax.npz import read_npz

#: One row per image; -1 means unknown. Evaluation sets keep their conventions: identity -1 is junk, 0 a distractor.
FIELDS = ("video", "tracklet", "frame", "camera", "identity")
LABELS = np.dtype([(name, "<i4") for name in FIELDS])


def write_labelling(path: Path, labels: np.ndarray, fingerprint: str, settings: dict, **more: np.ndarray) -> None:
    """Write an identity per image (-1: none) as a small file of its own, never into the shards.

    Args:
        path: The .npz to write.
        labels: (N,) whole numbers.
        fingerprint: That of the split that the labels belong to.
        settings: How they were made.
        more: Further arrays, for whoever opens the file.
    """
    arrays = {"fingerprint": np.array(fingerprint), "settings": np.array(json.dumps(settings))} | more
    with path.open("wb") as file:
        np.savez_compressed(file, labels=np.asarray(labels, np.int64), **arrays)  # type: ignore[arg-type]


def read_labelling(path: Path, fingerprint: str) -> np.ndarray:
    """The identity of every image of the split with this fingerprint; labels of any other data are refused."""
    arrays = read_npz(path, ["labels", "fingerprint"], expected="a labelling, as `cion denoise` writes it")
    made_for = str(arrays["fingerprint"])
    if made_for != fingerprint:
        raise UserError(f"{path}: made for other data (fingerprint {made_for[:12]}, not {fingerprint[:12]})")
    return arrays["labels"]
