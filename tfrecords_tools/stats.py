"""What a dataset holds: counts, distributions, one picture."""

import itertools
from pathlib import Path

import numpy as np

from cion_jax.atomic import write_atomically
from cion_jax.data import dataset
from cion_jax.data.records import Records

#: Image sizes are not in the index; this many records, evenly spread, are opened to learn them.
_SAMPLE = 1000

#: A whole person is two to three times as high as wide; wider than high, or much higher, is seldom one.
_USUAL_SHAPES = (1.0, 5.0)

#: The distributions, and what each of them counts.
_KINDS = {
    "images per tracklet": "tracklets",
    "images per identity": "identities",
    "images per video": "videos",
    "images per camera": "cameras",
    "bytes per image": "images",
    "height": "images",
    "width": "images",
}

Statistics = dict[str, dict[str, int | dict[str, float]]]


def statistics(folder: Path) -> Statistics:
    """For each split the counts, and minimum, median and maximum of what varies."""
    return {split: _split_statistics(Records(folder, split)) for split in dataset.read_card(folder)[0]}


def _split_statistics(records: Records) -> dict[str, int | dict[str, float]]:
    index = records.index
    counts: dict[str, int | dict[str, float]] = {
        "images": len(index),
        "shards": len(records.card.shards),
        "bytes": records.card.bytes,
        **{f"{name}s": len(_known(index[name])) for name in ("video", "tracklet", "camera")},
        "identities": len(_known(index["identity"])),
        "images without identity": int(np.count_nonzero(index["identity"] < 0)),
    }
    distributions = _distributions(records)
    counts["odd shapes"] = _odd_shapes(distributions["height"], distributions["width"])
    return counts | {name: _summary(values) for name, values in distributions.items() if len(values)}


def _odd_shapes(heights: np.ndarray, widths: np.ndarray) -> int:
    ratios = heights / widths
    return int(np.count_nonzero((ratios < _USUAL_SHAPES[0]) | (ratios > _USUAL_SHAPES[1])))


def _distributions(records: Records) -> dict[str, np.ndarray]:
    sample = [records[number] for number in np.unique(np.linspace(0, len(records) - 1, _SAMPLE, dtype=int))]
    per_label = [_counts(records.index[name]) for name in ("tracklet", "identity", "video", "camera")]
    per_image = [[len(record.image), record.height, record.width] for record in sample]
    return dict(zip(_KINDS, [*per_label, *np.array(per_image).T], strict=True))


def _known(values: np.ndarray) -> np.ndarray:
    return np.unique(values[values >= 0])


def _counts(values: np.ndarray) -> np.ndarray:
    return np.unique(values[values >= 0], return_counts=True)[1]


def _summary(values: np.ndarray) -> dict[str, float]:
    return {"min": float(values.min()), "median": float(np.median(values)), "max": float(values.max())}


def draw(folder: Path, path: Path) -> None:
    """One PNG of histograms: a split in each row, what varies in some split in the columns."""
    from matplotlib.figure import Figure  # slow to import, and only this picture needs it

    splits = {split: _distributions(Records(folder, split)) for split in dataset.read_card(folder)[0]}
    names = [name for name in _KINDS if any(len(np.unique(split[name])) > 1 for split in splits.values())]
    figure = Figure(figsize=(2 + 3 * len(names), 1 + 2.2 * len(splits)), layout="constrained")
    for place, (split, name) in enumerate(itertools.product(splits, names)):
        axes = figure.add_subplot(len(splits), len(names), place + 1)
        if not len(splits[split][name]):
            axes.set_axis_off()
            continue
        axes.hist(splits[split][name], bins=24, color="#4477aa")
        axes.set(ylabel=f"{split}\n{_KINDS[name]}", xlabel=name)
        axes.spines[["top", "right"]].set_visible(False)
    write_atomically(path, lambda aside: figure.savefig(aside, format="png", dpi=90))
