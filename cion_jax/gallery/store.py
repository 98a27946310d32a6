"""A gallery in a folder. Whoever reads it finds it as it was or as it is, never between: the card is changed last.

INDEX/index.json                      the card: how images are embedded, and which files belong to it
INDEX/files/features-1d9f... .npy     a unit vector for each image, float32 or float16
INDEX/files/rows-82c1... .npy         what is known of each image (rows.py)
INDEX/files/graph-07ab... .usearch    for approximate search, if it was asked for

Files are called by their digests, so that new ones can stand beside those of the card until it is replaced. Then the
old ones are removed.
"""

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from cion_jax.atomic import claim_folder, write_atomically
from cion_jax.config import Precision
from cion_jax.errors import UserError
from cion_jax.evaluate.distances import unit
from cion_jax.gallery.rows import are_rows
from cion_jax.npz import map_npy
from cion_jax.untrusted import check_file, check_is_file, check_signed, file_digest, read_json, signed

CARD = "index.json"
_FORMAT = 1
_AGAIN = "copy the folder again, or make it anew with `cion index`"
_ENDINGS = {"features": ".npy", "rows": ".npy", "graph": ".usearch"}
_NAME = re.compile(r"(features|rows|graph)-[0-9a-f]{16}\.(npy|usearch)")


@dataclass(frozen=True)
class Origin:
    """How the features were made, and from what. Empty texts are not known."""

    backbone: str = ""
    weights: str = ""
    """Digest of the weights."""
    weights_file: str = ""
    image_size: tuple[int, int] = (0, 0)
    flip: bool = False
    match_colours: bool = False
    precision: Precision = "float32"
    data: str = ""
    """The dataset or the folder of images that the images without a path are in."""
    split: str = ""
    fingerprint: str = ""
    """That of the split."""


@dataclass(frozen=True)
class Gallery:
    """Images that answer; features and rows are in the same order."""

    features: np.ndarray
    """(N, D) unit vectors, float32 or float16."""
    rows: np.ndarray
    """(N,) as `rows.make_rows` makes them."""
    origin: Origin = Origin()
    graph: Path | None = None
    """The file for approximate search. `save` does not look at it."""
    recall: float | None = None
    """The share of the ten nearest images that the graph found when it was made."""
    made: str = ""
    """A digest of what the gallery was made from at first, by which a repeated command knows its own work."""
    card: str = ""
    """The digest of the card that was read."""

    def vectors(self) -> np.ndarray:
        """The features as float32 unit vectors."""
        if self.features.dtype == np.float32:
            return self.features
        return unit(self.features.astype(np.float32), "gallery")


#: Fills a file.
Write = Callable[[Path], object]


def save(folder: Path, gallery: Gallery, write_graph: Write | None = None) -> None:
    """Write a gallery into a new folder, or in the place of the one that was read from it.

    A gallery that somebody else changed since it was read is left as it is, and this call ends with a UserError.
    """
    if len(gallery.features) != len(gallery.rows):
        raise UserError(f"{len(gallery.features):,} features for {len(gallery.rows):,} rows; one for each is needed")
    if not len(gallery.rows):
        raise UserError(f"{folder}: no image would be left; delete the folder instead")
    card = folder / CARD
    parts = folder / "files"

    def check(note: Path) -> None:
        if _read_card(note)["digest"] != gallery.card:
            raise UserError(
                f"{folder}: was changed meanwhile, or holds another index; read it again, or choose another"
            )

    claim_folder(folder, (card, parts / CARD), check)
    writers: dict[str, Write] = {"features": _npy(gallery.features), "rows": _npy(gallery.rows)}
    writers |= {"graph": write_graph} if write_graph else {}
    files = {role: _keep(parts, role, write) for role, write in writers.items()}
    contents = {
        "format": _FORMAT,
        "images": len(gallery.rows),
        "width": gallery.features.shape[1],
        "origin": asdict(gallery.origin),
        "made": gallery.made,
        "recall": gallery.recall if write_graph else None,
        "files": files,
    }
    if card.exists():
        check(card)
    write_atomically(card, lambda aside: aside.write_text(json.dumps(signed(contents), indent=1) + "\n"))
    remove_others(folder)


def read(folder: Path) -> Gallery:
    """The gallery in a folder, its features mapped into memory. Damaged files are refused."""
    card = _read_card(folder / CARD)
    paths = {role: folder / "files" / file["name"] for role, file in card["files"].items()}
    for role, path in paths.items():
        check_file(path, card["files"][role]["sha256"], _AGAIN)
    features, rows = (map_npy(paths[role], _AGAIN) for role in ("features", "rows"))
    shape = card["images"], card["width"]
    if features.shape != shape or features.dtype not in (np.float32, np.float16):
        raise UserError(f"{paths['features']}: holds {features.dtype} {features.shape}, not floats {shape}; {_AGAIN}")
    if rows.shape != shape[:1] or not are_rows(rows.dtype):
        raise UserError(f"{paths['rows']}: not a row for each of {shape[0]:,} images; {_AGAIN}")
    origin = _origin(folder / CARD, card["origin"])
    graph = paths.get("graph")
    return Gallery(features, np.array(rows), origin, graph, card["recall"], card["made"], card["digest"])


def made_from(folder: Path) -> str | None:
    """What the gallery in a folder was made from at first, see `Gallery.made`; None where none is finished."""
    return _read_card(folder / CARD)["made"] if (folder / CARD).exists() else None


def remove_others(folder: Path) -> None:
    """Remove what commands before left in the folder, and files that do not belong to the card any more."""
    own = {file["name"] for file in _read_card(folder / CARD)["files"].values()}
    for path in (folder / "files").iterdir():
        if path.name not in own:
            path.unlink(missing_ok=True)


def located_at(gallery: Gallery, **places: str) -> Gallery:
    """The same gallery, with `weights_file` or `data` elsewhere."""
    return replace(gallery, origin=replace(gallery.origin, **places))  # type: ignore[arg-type]


def _npy(array: np.ndarray) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.save(file, array, allow_pickle=False)

    return write


def _keep(parts: Path, role: str, write: Write) -> dict[str, str]:
    """Write a file and call it by its digest."""
    new = parts / f"{role}.new"
    write_atomically(new, write)
    digest = file_digest(new, _AGAIN)
    name = f"{role}-{digest[:16]}{_ENDINGS[role]}"
    new.replace(parts / name)
    return {"name": name, "sha256": digest}


def _read_card(path: Path) -> dict[str, Any]:
    check_is_file(path, f"no index is here without {CARD}; make one with `cion index`")
    kinds = {"images": int, "width": int, "origin": dict, "made": str, "files": dict, "digest": str}
    card = read_json(path, _AGAIN, kinds | {"recall": float | None}, (*kinds, "recall"))
    if card.get("format") != _FORMAT:
        raise UserError(f"{path}: format {card.get('format')!r} is not {_FORMAT}; update cion_jax")
    check_signed(card, path)
    try:
        names = [_NAME.fullmatch(card["files"][role]["name"]) for role in card["files"]]
        if not {"features", "rows"} <= {*card["files"]} <= {*_ENDINGS} or not all(names):
            raise ValueError("files are missing or misnamed")
        if not all(isinstance(file["sha256"], str) for file in card["files"].values()):
            raise ValueError("a digest is none")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: unreadable card ({error!r}); {_AGAIN}") from None
    return card


def _origin(path: Path, given: dict[str, Any]) -> Origin:
    """The origin of a card, whose values have the types of the defaults."""
    try:
        size = given["image_size"]
        if len(size) != 2 or not all(type(side) is int for side in size):
            raise ValueError(f"an image size of {size}")
        origin = Origin(**{**given, "image_size": tuple(size)})
        for field in fields(Origin):
            if type(getattr(origin, field.name)) is not type(field.default):
                raise ValueError(f"{field.name} is {getattr(origin, field.name)!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: unreadable card ({error}); {_AGAIN}") from None
    return origin
