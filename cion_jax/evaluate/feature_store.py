"""A folder of features, written in shards: after a kill, the same call keeps the shards that are whole.

OUT/features.json                              the card, written last: what was embedded, and with what
OUT/train/features-00000-of-00003.npy ...      float32, a unit vector per image
OUT/train/index.npy                            number and labels of each image, in the same order
OUT/train/names.json                           paths of the images, where they came from a folder of files

While the folder is written, OUT/.unfinished holds the card and the files that are not whole yet.
"""

import functools
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cion_jax.atomic import claim_folder, write_atomically
from cion_jax.config import Precision
from cion_jax.data import dataset
from cion_jax.data.files import Folder, is_remote
from cion_jax.data.labels import FIELDS, LABELS
from cion_jax.data.records import Records
from cion_jax.errors import UserError
from cion_jax.evaluate.colours import image_colours, matchable, matched
from cion_jax.evaluate.embed import Colours, ImageFolder, Images, batched, embed, embedder
from cion_jax.hosts import barrier, local_part, on_main
from cion_jax.models.network import Network
from cion_jax.models.zoo import Variables
from cion_jax.npz import map_npy
from cion_jax.terminal import progress_bar
from cion_jax.untrusted import check_file, check_is_file, check_signed, file_digest, read_json, signed

CARD = "features.json"
_FORMAT = 1

#: One row per feature: the number of its image in the split, and the image's labels.
INDEX = np.dtype([("number", "<i8"), *LABELS.descr])

_AGAIN = "embed the images again, into another folder"
_NOT_COMPARED = ("splits", "files", "digest", "made_from")


@dataclass(frozen=True)
class Labelled:
    """Images with their labels."""

    images: Images
    labels: np.ndarray
    """A row with the fields of LABELS for each image."""
    fingerprint: str
    """Digest that tells these images from others."""
    names: Sequence[str] = ()
    """The path of each image of a folder of files; datasets have none."""

    def has_tracklets(self) -> bool:
        """Whether any image has a known video and a known tracklet."""
        return bool(matchable(self.labels["video"], self.labels["tracklet"]).any())


def open_images(data: Folder, split: str | None = None) -> dict[str, Labelled]:
    """The splits of a dataset, or the one that is asked for. A folder of image files has one split, called images."""
    if is_remote(data) or dataset.is_dataset(data):
        names = [split] if split else [*dataset.read_card(data)[0]]
        parts = {name: Records(data, name) for name in names}
        return {name: Labelled(part.in_order(), part.index, part.card.fingerprint) for name, part in parts.items()}
    if split not in (None, "images"):
        raise UserError(f"{data}: a folder of images has no split {split!r}; leave --split out")
    folder = ImageFolder(Path(data))
    sizes = [(folder.folder / name).stat().st_size for name in folder.names]
    unknown = np.full(len(folder), -1, np.int32).repeat(len(FIELDS)).view(LABELS)
    return {"images": Labelled(folder, unknown, dataset.digest(folder.names, sizes), folder.names)}


def write_features(
    out: Path,
    splits: Mapping[str, Labelled],
    model: Network,
    variables: Variables,
    *,
    image_size: tuple[int, int],
    flip: bool = False,
    match_colours: bool = False,
    precision: Precision = "float32",
    batch: int = 256,
    images_per_shard: int = 1 << 14,
    made_from: Mapping[str, str] = {},
) -> dict[str, Any]:
    """Embed images into a new folder, or finish what a killed run of the same call began. Returns the card.

    The same call gives the same bytes, however often it was interrupted. Another `batch`, or another number of devices,
    may finish a folder: they change features by no more than rounding. Hosts share the shards of each split; `out` must
    be the same folder for all of them.

    `match_colours` matches the colours of each video to those of its split (see `colours.matched`). A split without
    tracklets keeps its colours. `made_from` goes into the card: where weights and data were, wherever they are later.
    """
    if batch < 1 or images_per_shard < 1:
        raise UserError(f"batch {batch}, images per shard {images_per_shard}: both must be positive")
    card = {
        "format": _FORMAT,
        "backbone": model.name,
        "weights": digest(variables),
        "width": model.width(image_size),
        "image_size": list(image_size),
        "flip": flip,
        "match_colours": match_colours,
        "precision": precision,
        "images_per_shard": images_per_shard,
        "made_from": dict(made_from),
        "splits": {name: {"images": len(s.images), "fingerprint": s.fingerprint} for name, s in splits.items()},
    }
    on_main(lambda: _claim(out, card))
    if not (out / CARD).exists():
        run = embedder(model, variables, flip=flip, precision=precision)
        for name, split in splits.items():
            colours = _matched(name, split, image_size) if match_colours and split.has_tracklets() else None
            embed_spans = functools.partial(embed, run, image_size=image_size, batch=batch, colours=colours)
            _write_split(out, name, split, card, embed_spans, batch)
        barrier()  # the card says that all shards are there
        on_main(lambda: _write(out, out / CARD, lambda path: path.write_text(_as_json(_signed(out, card)))))
    on_main(lambda: shutil.rmtree(_unfinished(out), ignore_errors=True))
    return card


def _signed(out: Path, card: dict[str, Any]) -> dict[str, Any]:
    """The card with digests of the files that are read again, and of itself."""
    paths = (path for split in card["splits"] for path in _files(out, split, card))
    return signed(card | {"files": {str(path.relative_to(out)): file_digest(path, _AGAIN) for path in paths}})


def _matched(name: str, split: Labelled, image_size: tuple[int, int]) -> Colours:
    """The scales and shifts that match the colours of a split; this reads all its images."""
    with progress_bar(f"colours of {name}", len(local_part(range(len(split.images))))) as advance:
        colours = image_colours(split.images, image_size, progress=advance)
    return matched(colours, split.labels["video"], split.labels["tracklet"])


def digest(variables: Variables) -> str:
    """Hex digest of weights: their names and bytes."""
    leaves = jax.tree_util.tree_flatten_with_path(variables)[0]
    return dataset.digest(*(part for path, leaf in leaves for part in (jax.tree_util.keystr(path), np.asarray(leaf))))


def read_features(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """The features of a split, float32 (N, width), and a row of INDEX for each. Damaged files are refused."""
    card = read_card(folder / CARD)
    images = _part(folder, card, split)["images"]
    for path in _files(folder, split, card):
        check_file(path, card.get("files", {}).get(str(path.relative_to(folder))), _AGAIN)
    index = _read(folder / split / "index.npy", (images,), INDEX)
    if not np.array_equal(index["number"], np.arange(images)):
        raise UserError(f"{folder / split / 'index.npy'}: image numbers are not 0 to {images - 1}; {_AGAIN}")
    shards = [_read(path, (len(span), card["width"]), np.float32) for path, span in _shards(folder, split, card)]
    return np.concatenate(shards), np.array(index)


def fingerprint_of(folder: Path, split: str) -> str:
    """The fingerprint of the images from which the features of a split were made."""
    return _part(folder, read_card(folder / CARD), split)["fingerprint"]


def _part(folder: Path, card: Mapping[str, Any], split: str) -> Mapping[str, Any]:
    if split not in card["splits"]:
        raise UserError(f"{folder}: no features of a split {split!r}; it has {', '.join(card['splits'])}")
    return card["splits"][split]


def _shards(out: Path, split: str, card: Mapping[str, Any]) -> list[tuple[Path, range]]:
    """The file of each shard, and the numbers of its images."""
    spans = batched(range(card["splits"][split]["images"]), card["images_per_shard"])
    return [(out / split / f"features-{i:05d}-of-{len(spans):05d}.npy", span) for i, span in enumerate(spans)]


def _files(out: Path, split: str, card: Mapping[str, Any]) -> list[Path]:
    """The files of a split that are read again."""
    return [out / split / "index.npy", *(path for path, _ in _shards(out, split, card))]


def _write_split(
    out: Path,
    name: str,
    split: Labelled,
    card: Mapping[str, Any],
    embed_spans: Callable[..., Iterator[np.ndarray]],
    batch: int,
) -> None:
    """Write those of this host's shards that are missing or damaged. Index and names are always written, quickly."""
    index = np.empty(len(split.images), INDEX)
    index["number"] = np.arange(len(index))
    for field in FIELDS:
        index[field] = split.labels[field]

    def write_labels() -> None:
        (out / name).mkdir(exist_ok=True)
        _write(out, out / name / "index.npy", functools.partial(_save, array=index))
        if split.names:
            _write(out, out / name / "names.json", lambda path: path.write_text(json.dumps(split.names, indent=0)))

    on_main(write_labels)
    local = local_part(_shards(out, name, card))
    missing = [(path, span) for path, span in local if not _is_whole(path, span, card["width"])]
    images = sum(len(span) for _, span in local)
    images_missing = sum(len(span) for _, span in missing)
    # One stream of features runs through all missing shards, so that the devices never wait for a file to be written.
    features = embed_spans(split.images, [part for _, span in missing for part in batched(span, batch)])
    with progress_bar(f"embedding {name}", images) as progress:
        progress(images - images_missing)
        for path, span in missing:
            parts = []
            for _ in batched(span, batch):
                parts.append(next(features))
                progress(len(parts[-1]))
            _write(out, path, functools.partial(_save, array=np.concatenate(parts)))


def _claim(out: Path, card: dict[str, Any]) -> None:
    """Put the card into a new folder, or accept one that has it. Any other folder is refused, and stays as it is."""
    for name in card["splits"]:
        if Path(name).name != name or name.startswith("."):
            raise UserError(f"{out}: a split called {name!r} cannot be a folder; rename it")

    def check(note: Path) -> None:
        if differences := _differences(read_card(note), card):
            remedy = "choose another folder or delete this one"
            raise UserError(f"{out}: holds features made in another way: {'; '.join(differences)}; {remedy}")

    if claim_folder(out, (out / CARD, _unfinished(out) / CARD), check) is None:
        _write(out, _unfinished(out) / CARD, lambda path: path.write_text(_as_json(card)))


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """What two cards differ in, for a message."""
    flat = [{**card, **{f"split {name}": split for name, split in card["splits"].items()}} for card in (there, here)]
    keys = [key for key in dict.fromkeys([*flat[0], *flat[1]]) if key not in _NOT_COMPARED]
    return [
        f"{key} {_short(flat[0].get(key))} there, {_short(flat[1].get(key))} here"
        for key in keys
        if flat[0].get(key) != flat[1].get(key)
    ]


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_short(each)}" for key, each in value.items())
    return "missing" if value is None else str(value)[:12]


def read_card(path: Path) -> dict[str, Any]:
    """The card of a folder of features."""
    check_is_file(path, f"no finished features are here without {CARD}; run `cion embed`")
    card = read_json(path, _AGAIN, {"splits": dict, "files": dict})
    if card.get("format") != _FORMAT:
        raise UserError(f"{path}: format {card.get('format')!r} is not {_FORMAT}; update cion_jax")
    check_signed(card, path)
    try:
        counts = [card["width"], card["images_per_shard"], *(split["images"] for split in card["splits"].values())]
        if any(type(count) is not int or not 0 < count < 1 << 40 for count in counts):
            raise ValueError("counts are not positive integers")
        if not all(isinstance(split["fingerprint"], str) for split in card["splits"].values()):
            raise ValueError("a fingerprint is none")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: unreadable card ({error!r}); {_AGAIN}") from None
    return {"match_colours": False, "made_from": {}} | card  # older cards do not have them


def _read(path: Path, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """A memory-mapped array that must have this shape and type. Pickled objects cannot be mapped, so none is run."""
    array = map_npy(path, _AGAIN)
    if array.shape != shape or array.dtype != dtype:
        raise UserError(f"{path}: holds {array.dtype} {array.shape}, not {np.dtype(dtype)} {shape}; {_AGAIN}")
    return array


def _is_whole(path: Path, span: range, columns: int) -> bool:
    try:
        return len(_read(path, (len(span), columns), np.float32)) > 0
    except UserError:
        return False


def _unfinished(out: Path) -> Path:
    return out / ".unfinished"


def _write(out: Path, path: Path, write: Callable[[Path], object]) -> None:
    write_atomically(path, write, _unfinished(out))


def _save(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def _as_json(card: Mapping[str, Any]) -> str:
    return json.dumps(card, indent=1) + "\n"
