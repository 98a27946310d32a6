"""The five numbers that say where an image comes from and whom it shows; and labellings, files of who is who."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cion_jax.errors import UserError
from cion_jax.npz import Header, read_npz

#: One row per image; -1 means unknown. Evaluation sets keep their conventions: identity -1 is junk, 0 a distractor.
FIELDS = ("video", "tracklet", "frame", "camera", "identity")
LABELS = np.dtype([(name, "<i4") for name in FIELDS])

#: No identity is larger: records and indices keep them in 32 bits.
MAX_IDENTITY = np.iinfo(np.int32).max
_FINGERPRINT_BYTES = 4096
_EXPECTED = "a labelling, as `cion denoise` writes it"


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


def fingerprint_of(path: Path) -> str:
    """The fingerprint of the split that a labelling was made for."""

    def check(headers: Mapping[str, Header]) -> None:
        if headers["fingerprint"].nbytes > _FINGERPRINT_BYTES:
            raise UserError(
                f"{path}: its fingerprint has {headers['fingerprint'].nbytes:,} bytes; make the labels again"
            )

    return str(read_npz(path, ["fingerprint"], expected=_EXPECTED, check=check)["fingerprint"])


def read_labelling(path: Path, fingerprint: str | None, images: int | None) -> np.ndarray:
    """The identity of every image of a split, (N,) int64 from -1 on; labels of any other data are refused.

    Args:
        path: The .npz.
        fingerprint: That of the split; None where it is not known.
        images: How many images the split has; None where that is not known.
    """

    def check(headers: Mapping[str, Header]) -> None:
        shape, dtype = headers["labels"]
        if len(shape) != 1 or not np.issubdtype(dtype, np.integer):
            raise UserError(f"{path}: labels are {dtype} of shape {shape}; write a whole number for each image")
        if images is not None and shape != (images,):
            raise UserError(f"{path}: {shape[0]:,} labels for {images:,} images; make the labels again")

    made_for = fingerprint_of(path)
    if fingerprint is not None and made_for != fingerprint:
        raise UserError(f"{path}: made for other data (fingerprint {made_for[:12]}, not {fingerprint[:12]})")
    labels = read_npz(path, ["labels"], expected=_EXPECTED, check=check)["labels"]
    wrong = np.flatnonzero((labels < -1) | (labels > MAX_IDENTITY))
    if len(wrong):
        raise UserError(
            f"{path}: label {labels[wrong[0]]} of image {wrong[0]:,} is not an identity from -1 to {MAX_IDENTITY:,}; "
            "make the labels again"
        )
    return labels.astype(np.int64, copy=False)
