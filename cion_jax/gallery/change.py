"""Who is in a gallery: images of a person are added, or a person or a tracklet is taken out."""

from dataclasses import replace

import numpy as np

from cion_jax.data.labels import FIELDS, LABELS
from cion_jax.errors import UserError
from cion_jax.gallery.rows import joined, make_rows, text
from cion_jax.gallery.store import Gallery


def enrolled(gallery: Gallery, person: str, features: np.ndarray, paths: list[str]) -> Gallery:
    """The gallery with images of a person added.

    Args:
        gallery: What it was.
        person: A new name, or that of somebody who is in the gallery already.
        features: (N, D) unit vectors, embedded as the gallery's `origin` says.
        paths: Where the N images are.
    """
    if not person or not person.isprintable():
        raise UserError(f"{person!r}: a person's name must have letters, and only such as can be printed")
    unknown = np.full(len(paths) * len(FIELDS), -1, np.int32).view(LABELS)
    rows = make_rows(unknown, person=[person] * len(paths), path=paths)
    features = np.concatenate([gallery.features, features.astype(gallery.features.dtype)])
    return replace(gallery, features=features, rows=joined(gallery.rows, rows), graph=None, recall=None)


def without(gallery: Gallery, person: str | None = None, tracklet: int | None = None) -> Gallery:
    """The gallery without the images of a person, or of a tracklet."""
    if (person is None) == (tracklet is None):
        raise UserError("give the name of a person, or --tracklet and its number: one of both")
    if person is not None:
        names = {text(name): name for name in np.unique(gallery.rows["person"]) if name}
        goes = gallery.rows["person"] == names.get(person, b"?")
        what = f"person {person!r}; there are {_some([*names])}"
    else:
        goes = (gallery.rows["tracklet"] == tracklet) & (gallery.rows["tracklet"] >= 0)
        what = f"tracklet {tracklet}; `cion search` tells the numbers of tracklets"
    if not goes.any():
        raise UserError(f"the index has no {what}")
    keep = ~goes
    return replace(gallery, features=gallery.features[keep], rows=gallery.rows[keep], graph=None, recall=None)


def _some(names: list[str]) -> str:
    if not names:
        return "no people with names or numbers"
    return ", ".join(names[:8]) + (f" and {len(names) - 8:,} more" if len(names) > 8 else "")
