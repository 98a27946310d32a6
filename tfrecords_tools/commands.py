"""The `cion data` commands: each reads its arguments, calls one tool and prints the outcome."""

import inspect
from collections.abc import Callable
from json import dumps
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from rich.table import Column, Table
from tyro.conf import Positional, arg

from cion_jax.atomic import write_atomically
from cion_jax.config import Crops, Tracking, World, Writing
from cion_jax.data.dataset import Split
from cion_jax.data.labels import read_labelling, write_labelling
from cion_jax.data.records import Records
from cion_jax.data.source import Source
from cion_jax.data.writer import write_dataset
from cion_jax.errors import UserError
from cion_jax.terminal import Console
from tfrecords_tools import export as exporting
from tfrecords_tools import repack as repacking
from tfrecords_tools.importers import IMPORTERS
from tfrecords_tools.tracklet_names import names_file, write_names

Folder = Annotated[Positional[Path], arg(metavar="FOLDER")]
Out = Annotated[Positional[Path], arg(metavar="OUT")]


def synth(out: Out, world: World = World(), writing: Writing = Writing(), settings: Path | None = None) -> None:
    """Draw a world of walking people and write it as a dataset.

    The splits are train (tracklets with a tracker's mistakes, no identities), query and gallery (held-out people, in
    the Market-1501 protocol). Who is who in train is kept apart, in OUT/truth.npz.

    Args:
        out: Folder to write; a run that was killed is finished by the same command.
        settings: A Python file to start from, which is run and builds a World as its `settings`, as
            experiments/crowded_world.py does; the other options override it. `cion_jax.cli` has read it.
    """
    from tfrecords_tools.world import build, truth

    sources = build(world)
    splits = write_dataset(out, sources, writing)
    if "train" in splits:
        people = truth(sources["train"])
        made_by = {"made by": "cion data synth", "seed": world.seed}
        write_atomically(
            out / "truth.npz",
            lambda path: write_labelling(path, people, splits["train"].fingerprint, made_by),
        )
    _announce(out, splits)


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
            table, "a/b/c: minimum, median and maximum, where they differ; image sizes are those of up to 1,000 images"
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
    drawn = sheet_of(records, rows_of(values, only, rows, columns))
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

    Layouts are tracklets (video/tracklet/image.jpg, as `cion data import folders` reads it back), identities
    (identity/tracklet/image.jpg), and market1501 (bounding_box_train, query and bounding_box_test with people, cameras
    and frames in the names, as `cion data import market1501` reads it back).

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
    out: Out,
    order: repacking.Order = "same",
    seed: int = 0,
    size: tuple[int, int] | None = None,
    labels: Path | None = None,
    writing: Writing = Writing(),
) -> None:
    """Write a dataset again with other shards, in another order, or with its images at another size.

    Args:
        folder: A dataset folder.
        out: Folder to write.
        order: As it is, shuffled, or grouped by identity (for stores where only sequential reading is fast).
        seed: Seed of the order.
        size: Height and width to resize images to; they are encoded again as JPEG. Without it no byte of them changes.
        labels: A labelling of the train split to group by; it is carried over to OUT/labels.npz.
    """
    splits = repacking.repack(folder, out, order=order, seed=seed, size=size, labelling=labels, writing=writing)
    _announce(out, splits)


def import_video(
    source: Annotated[Positional[Path], arg(metavar="SOURCE")],
    out: Out,
    tracking: Tracking = Tracking(),
    writing: Writing = Writing(),
) -> None:
    """Video files: people are found in them, followed and cut out.

    All become the split train. A video is a file, or a stretch of a long one; a tracklet is a person who is followed in
    it; frames are counted in the file, from 1. A file that cannot be read is named at the end, and the others go on.
    Beside the index stand each image's box in its frame, its score and its time (cion-train.boxes.npy), and which file
    and track each tracklet is (cion-train.tracklets.csv). Needs `pip install 'cion-jax[video]'`.

    Args:
        source: A video, a folder with videos in it, or a .txt file with the path of a video on each line.
        out: Folder to write; the same command finishes a killed run.
    """
    try:
        from tfrecords_tools.video.importing import import_videos
    except ImportError as error:
        raise UserError(f"{error.name} is not installed; `pip install 'cion-jax[video]'`") from None
    _announce(out, import_videos(source, out, tracking, writing))


def _import(importer: Callable[..., dict[str, Source]]) -> Callable[..., None]:
    """An importer as a command: its own arguments, then where and how to write."""

    def command(source: Path, out: Path, writing: Writing, **options: Any) -> None:
        sources = importer(source, **options)
        named = {split: getattr(found, "names", ()) for split, found in sources.items()}
        beside = {names_file(split): write_names(names) for split, names in named.items() if names}
        _announce(out, write_dataset(out, sources, writing, beside))

    own = inspect.signature(importer, eval_str=True).parameters
    place = inspect.Parameter.POSITIONAL_OR_KEYWORD
    option = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter("source", place, annotation=Annotated[Positional[Path], arg(metavar="SOURCE")]),
        inspect.Parameter("out", place, annotation=Out),
        *(parameter for name, parameter in own.items() if name != "source"),
        inspect.Parameter("writing", option, annotation=Writing, default=Writing()),
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command.__doc__ = f"{inspect.getdoc(importer)}\n    out: Folder to write; the same command finishes a killed run."
    return command


def _announce(out: Path, splits: dict[str, Split]) -> None:
    for name, split in splits.items():
        left_out = f", {split.left_out:,} damaged ones left out" if split.left_out else ""
        print(f"{out}: {name} has {split.images:,} images in {len(split.shards):,} shards{left_out}")


def _cell(value: int | dict[str, float] | None) -> str:
    if isinstance(value, dict):
        if value["min"] == value["max"]:
            return f"{value['min']:,.0f}"
        return "/".join(f"{number:,.0f}" for number in value.values())
    return "" if value is None else f"{value:,}"


COMMANDS: dict[str, Any] = {
    "import": {"video": import_video} | {kind: _import(importer) for kind, importer in IMPORTERS.items()},
    "synth": synth,
    "check": check,
    "stats": stats,
    "sheet": sheet,
    "views": views,
    "repack": repack,
    "export": export,
}
