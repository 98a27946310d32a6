"""`cion denoise`: from features and tracklets to identities."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from rich.console import Console
from rich.table import Column, Table
from tyro.conf import Positional, arg

from cion_jax.config import Denoising, Hosts
from cion_jax.errors import UserError

if TYPE_CHECKING:
    from cion_jax.data.records import Records
    from cion_jax.denoise.labelling import Denoised
    from cion_jax.denoise.table import Tracked


def denoise(
    features: Annotated[Positional[Path], arg(metavar="FEATURES")],
    out: Annotated[Positional[Path], arg(metavar="OUT")],
    settings: Denoising = Denoising(),
    split: str = "train",
    report: Path | None = None,
    images: Path | None = None,
    hosts: Hosts = Hosts(),
) -> None:
    """Find out who is who among tracklets, and write an identity for each image.

    FEATURES is a folder that `cion embed` wrote, or an .npz of any features with the arrays features (N, D), video (N),
    tracklet (N), which is in one video only, and optionally frame (N): two people in one frame are never taken for one.

    OUT is an .npz with labels (N): from 0 without gaps, -1 for images that fit nobody; noise, a row for the raw
    tracklets and one after each level, of images, identities, images farther than sigma from their centroid, and pairs
    of identities nearer than tau; and settings, as JSON. Made from a folder of features, it is a labelling for `cion
    pretrain --labels`.

    Args:
        features: What `cion embed` wrote, or an .npz.
        out: The .npz to write.
        settings: How to seek.
        split: Which split of a folder of features.
        report: Also write a page with tables and pictures, as this HTML file.
        images: The dataset folder that the features were made from, for the report to show people.
        hosts: How processes find each other, which then share what is compared.
    """
    from cion_jax.aside import write_aside
    from cion_jax.data.labels import write_labelling
    from cion_jax.data.progress import progress
    from cion_jax.denoise.labelling import denoise
    from cion_jax.hosts import leading, together

    with together(hosts):
        _check(features, out, settings, report, images)
        tracked, made_for = _read(features, split)
        records = None if images is None else _records(images, split, features, made_for)
        try:
            with progress("denoising", settings.levels + 1) as done:
                found = denoise(*tracked, settings, done)
        except UserError as error:
            raise UserError(f"{features}: {error}") from None
        if leading():
            told = {"made by": "cion denoise", "features": str(features)} | found.told()
            noise = np.array(found.noise)
            write_aside(out, lambda path: write_labelling(path, found.labels, made_for, told, noise=noise))
            _show(found)
            nobody = np.count_nonzero(found.labels < 0)
            print(f"{out}: {found.labels.max() + 1:,} identities; {nobody:,} images are nobody's")
            if report is not None:
                _write_report(report, tracked, found, records)


def _check(features: Path, out: Path, settings: Denoising, report: Path | None, images: Path | None) -> None:
    from cion_jax.denoise.labelling import check_settings

    check_settings(settings)
    if images is not None and (report is None or not features.is_dir()):
        raise UserError(f"--images {images}: shows people in the --report on a folder of features; leave it out")
    for path in (out, report):
        if path is not None and not path.parent.is_dir():
            raise UserError(f"{path}: there is no folder {path.parent}; make it first")


def _write_report(path: Path, tracked: "Tracked", found: "Denoised", records: "Records | None") -> None:
    from cion_jax.aside import write_aside
    from cion_jax.denoise.sightings import sightings
    from cion_jax.report.denoising import denoising

    text = denoising(sightings(*tracked), found, records)
    write_aside(path, lambda aside: aside.write_text(text))
    print(f"{path}: written")


def _read(features: Path, split: str) -> "tuple[Tracked, str]":
    """Features and tracklets, and the fingerprint of the images they were made from, if that is known."""
    from cion_jax.denoise.table import Tracked, read_table
    from cion_jax.evaluate.features import fingerprint_of, read_features

    if not features.is_dir():
        return read_table(features), ""
    rows, index = read_features(features, split)
    return Tracked(rows, *(index[name] for name in Tracked._fields[1:])), fingerprint_of(features, split)


def _records(images: Path, split: str, features: Path, made_for: str) -> "Records":
    from cion_jax.data.records import Records

    records = Records(images, split)
    if records.card.fingerprint != made_for:
        raise UserError(f"--images {images}: not the data that {features} was made from; name that")
    return records


def _show(found: "Denoised") -> None:
    """The noise before and after each level, as a table."""
    names = ("images", "identities", "beyond sigma", "pairs nearer than tau")
    table = Table("", *(Column(name, justify="right") for name in names))
    for level, noise in enumerate(found.noise):
        table.add_row(f"level {level}" if level else "raw tracklets", *(f"{count:,}" for count in noise))
    Console().print(table)
    print(
        f"sigma {found.settings.sigma:.4g}, tau {found.settings.tau:.4g}; near pairs that stay two: {found.refusals()}"
    )
