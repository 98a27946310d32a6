"""Features as a folder, written in shards: a killed run that is repeated takes up what is whole.

OUT/features.json                              the card, written last: what was embedded, and with what
OUT/train/features-00000-of-00003.npy ...      float32, a unit vector per image
OUT/train/index.npy                            number and labels of each image, in the same order
OUT/train/names.json                           paths of the images, where they came from a folder of files

While it is written, OUT/.unfinished holds the card to be and whatever is not whole.
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

from cion_jax.atomic import write_atomically
from cion_jax.data import dataset
from cion_jax.data.files import Folder, is_remote
from cion_jax.data.labels import FIELDS, LABELS
from cion_jax.data.records import Records
from cion_jax.errors import UserError
from cion_jax.evaluate.colours import image_colours, matchable, matched
from cion_jax.evaluate.embed import Colours, ImageFolder, Images, Precision, batched, embed, embedder
from cion_jax.hosts import barrier, local_part, on_main
from cion_jax.models.zoo import Backbone, Variables
from cion_jax.terminal import progress_bar

CARD = "features.json"
_FORMAT = 1

#: One row per feature: the number of its image in the split, and the image's labels.
INDEX = np.dtype([("number", "<i8"), *LABELS.descr])

_AGAIN = "embed the images again, into another folder"


@dataclass(frozen=True)
class Labelled:
    """Images with what is known of them."""

    images: Images
    labels: np.ndarray
    """A row with the fields of LABELS for each image."""
    fingerprint: str
    """Digest of what the images are."""
    names: Sequence[str] = ()
    """A name for each image, where the labels do not tell where it came from."""

    def has_tracklets(self) -> bool:
        """Whether the video and the tracklet of any image are known."""
        return bool(matchable(self.labels["video"], self.labels["tracklet"]).any())


def open_images(data: Folder, split: str | None = None) -> dict[str, Labelled]:
    """The splits of a dataset (all of them, or one), or those of a folder of image files: one, called images."""
    if is_remote(data) or dataset.is_dataset(data):
        names = [split] if split else [*dataset.read_card(data)[0]]
        return {name: _from_records(Records(data, name)) for name in names}
    if split not in (None, "images"):
        raise UserError(f"{data}: a folder of images has no split {split!r}; leave --split out")
    folder = ImageFolder(Path(data))
    sizes = [(folder.folder / name).stat().st_size for name in folder.names]
    unknown = np.full(len(folder), -1, np.int32).repeat(len(FIELDS)).view(LABELS)
    return {"images": Labelled(folder, unknown, dataset.digest(folder.names, sizes), folder.names)}


def _from_records(records: Records) -> Labelled:
    return Labelled(records.in_order(), records.index, records.card.fingerprint)


def write_features(
    out: Path,
    splits: Mapping[str, Labelled],
    model: Backbone,
    variables: Variables,
    *,
    image_size: tuple[int, int],
    flip: bool = False,
    match_colours: bool = False,
    precision: Precision = "float32",
    batch: int = 256,
    images_per_shard: int = 1 << 14,
) -> dict[str, Any]:
    """Embed images into a new folder, or finish what a killed run of the same call began. Returns the card.

    The same call gives the same bytes however often it was interrupted. Hosts share the shards of each split, in a
    folder that must be the same for all of them. How many images and devices work together is no part of what a folder
    is: another `batch` may finish it, and changes features by no more than rounding.

    `match_colours` matches the colours of each video to those of its split (see `colours.matched`); a split without
    tracklets is left as it is.
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
        "splits": {
            name: {"images": len(split.images), "fingerprint": split.fingerprint} for name, split in splits.items()
        },
    }
    on_main(lambda: _claim(out, card))
    if not (out / CARD).exists():
        run = embedder(model, variables, flip=flip, precision=precision)
        for name, split in splits.items():
            colours = _matched(name, split, image_size) if match_colours and split.has_tracklets() else None
            how = functools.partial(embed, run, image_size=image_size, batch=batch, colours=colours)
            _write_split(out, name, split, card, how, batch)
        barrier()  # the card says that all shards are there
        on_main(lambda: _write(out, out / CARD, lambda path: path.write_text(_as_json(card))))
    on_main(lambda: shutil.rmtree(_unfinished(out), ignore_errors=True))
    return card


def _matched(name: str, split: Labelled, image_size: tuple[int, int]) -> Colours:
    """How the colours of the images of a split change; all of them are read for it."""
    with progress_bar(f"colours of {name}", len(local_part(range(len(split.images))))) as advance:
        colours = image_colours(split.images, image_size, progress=advance)
    return matched(colours, split.labels["video"], split.labels["tracklet"])


def digest(variables: Variables) -> str:
    """Hex digest of weights: their names and bytes."""
    leaves = jax.tree_util.tree_flatten_with_path(variables)[0]
    return dataset.digest(*(part for path, leaf in leaves for part in (jax.tree_util.keystr(path), np.asarray(leaf))))


def read_features(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """The features of a split, float32 (N, width), and a row of INDEX for each; what is not whole is refused."""
    card = _read_card(folder / CARD)
    images = _part(folder, card, split)["images"]
    index = _read(folder / split / "index.npy", (images,), INDEX)
    if not np.array_equal(index["number"], np.arange(images)):
        raise UserError(f"{folder / split / 'index.npy'}: image numbers are not 0 to {images - 1}; {_AGAIN}")
    shards = [_read(path, (len(span), card["width"]), np.float32) for path, span in _shards(folder, split, card)]
    return np.concatenate(shards), np.array(index)


def fingerprint_of(folder: Path, split: str) -> str:
    """The fingerprint of the images that the features of a split were made from."""
    return _part(folder, _read_card(folder / CARD), split)["fingerprint"]


def _part(folder: Path, card: Mapping[str, Any], split: str) -> Mapping[str, Any]:
    if split not in card["splits"]:
        raise UserError(f"{folder}: no features of a split {split!r}; it has {', '.join(card['splits'])}")
    return card["splits"][split]


def _shards(out: Path, split: str, card: Mapping[str, Any]) -> list[tuple[Path, range]]:
    """The file of each shard, and the numbers of its images."""
    spans = batched(range(card["splits"][split]["images"]), card["images_per_shard"])
    return [(out / split / f"features-{i:05d}-of-{len(spans):05d}.npy", span) for i, span in enumerate(spans)]


def _write_split(
    out: Path,
    name: str,
    split: Labelled,
    card: Mapping[str, Any],
    embed: Callable[..., Iterator[np.ndarray]],
    batch: int,
) -> None:
    """Write this host's shards that are missing or not whole; index and names are quickly written again."""
    index = np.empty(len(split.images), INDEX)
    index["number"] = np.arange(len(index))
    for field in FIELDS:
        index[field] = split.labels[field]

    def describe() -> None:
        (out / name).mkdir(exist_ok=True)
        _write(out, out / name / "index.npy", functools.partial(_save, array=index))
        if split.names:
            _write(out, out / name / "names.json", lambda path: path.write_text(json.dumps(split.names, indent=0)))

    on_main(describe)
    mine = local_part(_shards(out, name, card))
    missing = [(path, span) for path, span in mine if not _is_whole(path, span, card["width"])]
    with progress_bar(f"embedding {name}", sum(len(span) for _, span in mine)) as advance:
        advance(sum(len(span) for _, span in mine) - sum(len(span) for _, span in missing))

        def counted(found: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
            for rows in found:
                advance(len(rows))
                yield rows

        found = counted(embed(split.images, [part for _, span in missing for part in batched(span, batch)]))
        for path, span in missing:
            shard = np.concatenate([next(found) for _ in batched(span, batch)])
            _write(out, path, functools.partial(_save, array=shard))


def _claim(out: Path, card: dict[str, Any]) -> None:
    """Make the folder ours; somebody else's is refused untouched."""
    advice = "choose another folder or delete this one"
    for path in (out / CARD, _unfinished(out) / CARD):
        if path.exists():
            if differences := _differences(_read_card(path), card):
                raise UserError(f"{out}: holds features made otherwise: {'; '.join(differences)}; {advice}")
            return
    if out.exists() and (not out.is_dir() or any(path != _unfinished(out) for path in out.iterdir())):
        raise UserError(f"{out}: already holds something else; {advice}")
    for name in card["splits"]:
        if Path(name).name != name or name.startswith("."):
            raise UserError(f"{out}: a split called {name!r} cannot be a folder; rename it")
    _unfinished(out).mkdir(parents=True, exist_ok=True)
    _write(out, _unfinished(out) / CARD, lambda path: path.write_text(_as_json(card)))


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    flat = [{**card, **{f"split {name}": split for name, split in card["splits"].items()}} for card in (there, here)]
    keys = [key for key in dict.fromkeys([*flat[0], *flat[1]]) if key != "splits"]
    return [
        f"{key} {_short(flat[0].get(key))} there, {_short(flat[1].get(key))} here"
        for key in keys
        if flat[0].get(key) != flat[1].get(key)
    ]


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_short(each)}" for key, each in value.items())
    return "missing" if value is None else str(value)[:12]


def _read_card(path: Path) -> dict[str, Any]:
    try:
        card = json.loads(path.read_text())
        if card["format"] != _FORMAT:
            raise UserError(f"{path}: format {card['format']!r} is not {_FORMAT}; update cion_jax")
        counts = [card["width"], card["images_per_shard"], *(split["images"] for split in card["splits"].values())]
        if any(type(count) is not int or count < 1 for count in counts):
            raise ValueError("counts are not positive integers")
        return {"match_colours": False} | card  # older cards do not have it
    except FileNotFoundError:
        raise UserError(f"{path.parent}: no finished features here ({CARD} is missing); run `cion embed`") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: unreadable card ({error!r}); {_AGAIN}") from None


def _read(path: Path, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """A memory-mapped array that must have this shape and type. Nothing that is pickled is run: it cannot be mapped."""
    try:
        array = np.lib.format.open_memmap(path, mode="r")
        found = f"{array.dtype} {array.shape}"
    except Exception as error:  # numpy promises no more about damaged files
        raise UserError(f"{path}: missing or damaged ({' '.join(str(error).split())[:80]}); {_AGAIN}") from None
    if array.shape != shape or array.dtype != dtype:
        raise UserError(f"{path}: holds {found}, not {np.dtype(dtype)} {shape}; {_AGAIN}")
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
