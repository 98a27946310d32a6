"""The five numbers that say where an image comes from and whom it shows, and labellings: who is who, found or known."""

import json
from pathlib import Path

import numpy as np

from cion_jax.errors import UserError

#: One row per image; -1 means unknown. Evaluation sets keep their conventions: identity -1 is junk, 0 a distractor.
FIELDS = ("video", "tracklet", "frame", "camera", "identity")
LABELS = np.dtype([(name, "<i4") for name in FIELDS])


def write_labelling(path: Path, labels: np.ndarray, fingerprint: str, settings: dict, **more: np.ndarray) -> None:
    """Write an identity per image (-1: none) as a small file of its own, never into the shards.

    `fingerprint` is that of the split that the labels belong to, `settings` say how they were made; further arrays are
    for whoever opens the file.
    """
    arrays = {"fingerprint": np.array(fingerprint), "settings": np.array(json.dumps(settings))} | more
    with path.open("wb") as file:
        np.savez_compressed(file, labels=np.asarray(labels, np.int64), **arrays)  # type: ignore[arg-type]


def read_labelling(path: Path, fingerprint: str) -> np.ndarray:
    """The identity of every image of the split with this fingerprint; labels of any other data are refused."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            labels, made_for = arrays["labels"], str(arrays["fingerprint"])
    except Exception as error:  # numpy and zipfile promise no more about damaged files
        raise UserError(f"{path}: not a labelling ({error})") from None
    if made_for != fingerprint:
        raise UserError(f"{path}: made for other data (fingerprint {made_for[:12]}, not {fingerprint[:12]})")
    return labels
