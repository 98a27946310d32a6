"""What a dataset holds: counts, distributions, one picture."""

from pathlib import Path

import numpy as np

from cion_jax.data import dataset
from cion_jax.data.records import Records

#: Image sizes are not in the index; this many records, evenly spread, are opened to learn them.
_SAMPLE = 1000

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
    return counts | {name: _summary(values) for name, values in distributions.items() if len(values)}


def _distributions(records: Records) -> dict[str, np.ndarray]:
    index = records.index
    sample = [records[number] for number in np.unique(np.linspace(0, len(index) - 1, _SAMPLE, dtype=int))]
    return {
        "images per tracklet": _counts(index["tracklet"]),
        "images per identity": _counts(index["identity"]),
        "images per video": _counts(index["video"]),
        "images per camera": _counts(index["camera"]),
        "bytes per image": np.array([len(record.image) for record in sample]),
        "height": np.array([record.height for record in sample]),
        "width": np.array([record.width for record in sample]),
    }


def _known(values: np.ndarray) -> np.ndarray:
    return np.unique(values[values >= 0])


def _counts(values: np.ndarray) -> np.ndarray:
    return np.unique(values[values >= 0], return_counts=True)[1]


def _summary(values: np.ndarray) -> dict[str, float]:
    return {"min": float(values.min()), "median": float(np.median(values)), "max": float(values.max())}


def draw(folder: Path, path: Path) -> None:
    """One PNG with a histogram of each distribution, the splits over each other."""
    from matplotlib.figure import Figure  # slow to import, and only this picture needs it

    splits = {split: _distributions(Records(folder, split)) for split in dataset.read_card(folder)[0]}
    names = [name for name in next(iter(splits.values())) if any(len(found[name]) for found in splits.values())]
    figure = Figure(figsize=(12, 3 * -(-len(names) // 3)), layout="constrained")
    for place, name in enumerate(names, start=1):
        axes = figure.add_subplot(-(-len(names) // 3), 3, place)
        values = {split: found[name] for split, found in splits.items() if len(found[name])}
        axes.hist(list(values.values()), bins=24, label=list(values), histtype="stepfilled", alpha=0.6)
        axes.set(xlabel=name, ylabel="images" if place > len(names) - 3 else "")
        axes.legend(frameon=False)
    dataset.write_aside(path, lambda aside: figure.savefig(aside, format="png", dpi=110))
