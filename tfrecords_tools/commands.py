"""The `cion data` commands: each reads its arguments, calls one tool and prints the outcome."""

from json import dumps
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Column, Table

from cion_jax.atomic import write_atomically
from cion_jax.config import Crops, World, Writing
from cion_jax.data.files import located, put
from cion_jax.data.labels import read_labelling, write_labelling
from cion_jax.data.records import Records
from cion_jax.data.writer import write_dataset
from cion_jax.errors import UserError
from cion_jax.terminal import Console
from tfrecords_tools import export as exporting
from tfrecords_tools import repack as repacking
from tfrecords_tools.import_commands import Anywhere, Folder, Out, adopt, announce, import_command, import_video
from tfrecords_tools.importers import IMPORTERS
from tfrecords_tools.tracklet_names import called, read_names


def synth(out: Anywhere, world: World = World(), writing: Writing = Writing(), settings: Path | None = None) -> None:
    """Draw a world of walking people and write it as a dataset.

    The splits are train (tracklets with a tracker's mistakes, no identities), query and gallery (held-out people, in
    the Market-1501 protocol). Who is who in train is kept apart, in OUT/truth.npz.

    Args:
        out: Folder to write, or its URL in a store; a run that was killed is finished by the same command.
        settings: A Python file to start from, which is run and builds a World as its `settings`, as
            experiments/crowded_world.py does; the other options override it. `cion_jax.cli` has read it.
    """
    from tfrecords_tools.world import build, truth

    out = located(out)
    sources = build(world)
    splits = write_dataset(out, sources, writing)
    if "train" in splits:
        people = truth(sources["train"])
        made_by = {"made by": "cion data synth", "seed": world.seed}
        put(
            out / "truth.npz",
            lambda path: write_labelling(path, people, splits["train"].fingerprint, made_by),
        )
    announce(out, splits)


def check(folder: Folder) -> int:
    """Read and decode every image, compare card, index, shards and labels, and list what is wrong and where.

    Ends with code 0 if all is well, 1 if not.

    Args:
        folder: A dataset folder.
    """
    from tfrecords_tools.check import problems, without_digest

    count = 0
    for problem in problems(folder):
        print(problem)
        count += 1
    if names := without_digest(folder):
        print(f"{folder}: the card has no digest of {', '.join(names)}; `cion data repack` writes one that has")
    print(f"{folder}: {count} problem{'s' if count != 1 else ''} found")
    return 1 if count else 0


def stats(folder: Folder, picture: Path | None = None, json: bool = False) -> None:
    """Count what a dataset holds and how it is distributed.

    Args:
        folder: A dataset folder.
        picture: Also draw the histograms, as this PNG file.
        json: Print JSON instead of a table.
    """
    from tfrecords_tools.stats import draw, statistics

    splits = statistics(folder)
    if json:
        print(dumps(splits, indent=1))
    else:
        table = Table(Column(no_wrap=True), *(Column(split, overflow="fold") for split in splits))
        for name in dict.fromkeys(name for rows in splits.values() for name in rows):
            table.add_row(name, *(_cell(rows.get(name)) for rows in splits.values()))
        Console().print(
            table,
            "a/b/c: minimum, median and maximum, where they differ; image sizes are those of up to 1,000 images, and "
            "shapes are odd that are wider than high, or more than five times as high as wide",
        )
    if picture is not None:
        draw(folder, picture)


def sheet(
    folder: Folder,
    out: Out,
    split: str = "train",
    by: str = "",
    labels: Path | None = None,
    only: tuple[int, ...] = (),
    rows: int = 10,
    columns: int = 10,
) -> None:
    """Draw a contact sheet: an identity (or tracklet, video, camera) in each row, its images side by side.

    Tracklets and videos that have names in their source (cion-SPLIT.tracklets.csv) are shown with them.

    Args:
        folder: A dataset folder.
        out: The picture to write, in the format that its name says: .png, .jpg or .webp.
        split: Which split.
        by: What makes a row: identity, tracklet, video or camera. By default identity where there are identities, and
            otherwise tracklet.
        labels: A labelling to take the identities from, such as FOLDER/truth.npz.
        only: The labels to show; without any, rows are spread evenly over those with many images.
        rows: How many rows, where `only` does not name them.
        columns: Images per row, spread evenly over what there is.
    """
    from tfrecords_tools.sheet import picture_format, rows_of, sheet_of

    format_ = picture_format(out)
    records = Records(folder, split)
    if not by:
        by = "identity" if labels is not None or (records.index["identity"] >= 0).any() else "tracklet"
    if by not in ("identity", "tracklet", "video", "camera"):
        raise UserError(f"--by {by}: must be identity, tracklet, video or camera")
    if rows < 1 or columns < 1:
        raise UserError(f"a sheet of {rows} rows and {columns} columns shows nothing; both must be at least 1")
    values = np.asarray(records.index[by])
    if labels is not None:
        values = read_labelling(labels, records.card.fingerprint, len(records))
    drawn = sheet_of(records, rows_of(values, only, rows, columns), called(read_names(folder, split), by))
    write_atomically(out, lambda path: drawn.save(path, format=format_))
    print(f"{out}: written, with a row for each {by}")


def views(folder: Folder, out: Out, split: str = "train", rows: int = 6, seed: int = 0, crops: Crops = Crops()) -> None:
    """Draw what augmentation makes of images: in each row an image, its two global crops and its local crops.

    Args:
        folder: A dataset folder.
        out: The PNG file to write.
        split: Which split.
        rows: How many images, spread evenly over the split.
        seed: Other crops for another number.
    """
    from tfrecords_tools.views import draw_views

    if rows < 1:
        raise UserError(f"--rows {rows}: must be at least 1")
    draw_views(Records(folder, split), crops, out, rows=rows, seed=seed)
    print(f"{out}: written")


def export(
    folder: Folder,
    out: Out,
    layout: exporting.Layout = "tracklets",
    split: str = "train",
    labels: Path | None = None,
) -> None:
    """Write the images of a dataset into folders; not a byte of them changes.

    Layouts are tracklets (video/tracklet/image.jpg), identities (identity/tracklet/image.jpg), and market1501
    (bounding_box_train, query and bounding_box_test with people, cameras and frames in the names). The first two have a
    table OUT/images.jsonl, with which `cion data import manifest OUT/images.jsonl` reads all of it back, names of the
    source too (an image of no video or tracklet gets one of its own); `cion data import folders` needs only the folders
    of tracklets, and `market1501` reads its own.

    Args:
        folder: A dataset folder.
        out: Folder to make.
        layout: tracklets, identities or market1501.
        split: Which split; market1501 writes all of them.
        labels: A labelling to take the identities from, such as FOLDER/truth.npz; in market1501 those of train.
    """
    written = exporting.export(folder, out, layout=layout, split=split, labelling=labels)
    print(f"{out}: {written:,} images written")


def repack(
    folder: Folder,
    out: Anywhere,
    order: repacking.Order = "same",
    seed: int = 0,
    size: tuple[int, int] | None = None,
    labels: Path | None = None,
    writing: Writing = Writing(),
) -> None:
    """Write a dataset again with other shards, in another order, or with its images at another size.

    Args:
        folder: A dataset folder.
        out: Folder to write, or its URL in a store.
        order: As it is, shuffled, or grouped by identity (for stores where only sequential reading is fast).
        seed: Seed of the order.
        size: Height and width to resize images to; they are encoded again as JPEG. Without it no byte of them changes.
        labels: A labelling of the train split to group by; it is carried over to OUT/labels.npz.
    """
    splits = repacking.repack(
        folder, located(out), order=order, seed=seed, size=size, labelling=labels, writing=writing
    )
    announce(out, splits)


def _cell(value: int | dict[str, float] | None) -> str:
    if isinstance(value, dict):
        if value["min"] == value["max"]:
            return f"{value['min']:,.0f}"
        return "/".join(f"{number:,.0f}" for number in value.values())
    return "" if value is None else f"{value:,}"


COMMANDS: dict[str, Any] = {
    "import": {"video": import_video} | {kind: import_command(importer) for kind, importer in IMPORTERS.items()},
    "adopt": adopt,
    "synth": synth,
    "check": check,
    "stats": stats,
    "sheet": sheet,
    "views": views,
    "repack": repack,
    "export": export,
}
