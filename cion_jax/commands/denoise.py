"""`cion denoise`: from features and tracklets to identities."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from rich.table import Column, Table
from tyro.conf import Positional, arg

from cion_jax.config import Denoising, Hosts
from cion_jax.errors import UserError
from cion_jax.terminal import Console

if TYPE_CHECKING:
    from cion_jax.data.records import Records
    from cion_jax.denoise.denoise import Denoised
    from cion_jax.denoise.inputs import TrackedFeatures
    from cion_jax.hosts import Facts


def denoise(
    features: Annotated[Positional[Path], arg(metavar="FEATURES")],
    out: Annotated[Positional[Path], arg(metavar="OUT")],
    settings: Denoising = Denoising(),
    split: str = "train",
    report: Path | None = None,
    people: Path | None = None,
    images: Path | None = None,
    hosts: Hosts = Hosts(),
) -> None:
    """Find out who is who among tracklets, and write an identity for each image.

    FEATURES is a folder that `cion embed` wrote (best with --flip --match-colours), or an .npz of any features. An .npz
    has the arrays features (N, D) and tracklet (N), and optionally: video (N), without which all tracklets are of one
    video (a tracklet is in only one); frame (N), since two people in one frame are never taken for one; mirrored
    (N, D), features of the mirrored images.

    OUT is an .npz with labels (N): from 0 without gaps, -1 for images that fit nobody; noise, a row for the raw
    tracklets and one after each level, with the numbers of images, identities, images farther than sigma from their
    tracklet, and pairs of identities nearer than tau; and settings, as JSON. Made from a folder of features, it is a
    labelling for `cion pretrain --labels`.

    Where the features do not carry a link, tracklets are cleaned and left apart, and a line says so. Tracklets of
    somebody whom the tracker followed twice are one, if --images names the dataset in which that stands.

    Args:
        features: What `cion embed` wrote, or an .npz.
        out: The .npz to write.
        settings: How identities are sought.
        split: Which split of a folder of features.
        report: Also write a page with tables and pictures, as this HTML file.
        people: Also write a page with a row for each person, as this HTML file: where and when seen, best pictures.
        images: The dataset folder that the features were made from, for the pages to show people.
        hosts: How processes find each other, which then share what is compared.
    """
    from cion_jax.data.boxes import joined_tracklets
    from cion_jax.denoise.denoise import denoise
    from cion_jax.hosts import is_main, join_job
    from cion_jax.terminal import progress_bar

    _check(features, out, settings, (report, people), images)
    with join_job(hosts, lambda: _facts(features, out, settings, split)):
        tracked, fingerprint = _read(features, split, settings)
        records = None if images is None else _records(images, split, features, fingerprint)
        if records is not None:
            tracked = tracked._replace(tracklet=joined_tracklets(records))
        try:
            with progress_bar("denoising", settings.levels + 1) as progress:
                denoised = denoise(*tracked, settings, progress)
        except UserError as error:
            raise UserError(f"{features}: {error}") from None
        if is_main():
            _write_labels(out, features, denoised, fingerprint)
            _show(denoised)
            nobody = np.count_nonzero(denoised.labels < 0)
            print(f"{out}: {denoised.labels.max() + 1:,} identities; {nobody:,} images are nobody's")
            for warning in denoised.warnings:
                print(f"cion: {warning}", file=sys.stderr)
            _write_pages(report, people, tracked, denoised, records)


def _write_labels(out: Path, features: Path, denoised: "Denoised", fingerprint: str) -> None:
    from cion_jax.atomic import write_atomically
    from cion_jax.data.labels import write_labelling

    made_by = {"made by": "cion denoise", "features": str(features)} | denoised.as_dict()
    noise = np.array(denoised.noise)
    write_atomically(out, lambda path: write_labelling(path, denoised.labels, fingerprint, made_by, noise=noise))


def _write_pages(
    report: Path | None,
    people: Path | None,
    tracked: "TrackedFeatures",
    denoised: "Denoised",
    records: "Records | None",
) -> None:
    from cion_jax.atomic import write_atomically
    from cion_jax.report.denoising import denoising
    from cion_jax.report.people import people_page

    for path, make in ((report, denoising), (people, people_page)):
        if path is not None:
            text = make(tracked, denoised, records)
            write_atomically(path, lambda aside, text=text: aside.write_text(text))  # type: ignore[misc]
            print(f"{path}: written")


def _check(
    features: Path, out: Path, settings: Denoising, pages: tuple[Path | None, Path | None], images: Path | None
) -> None:
    from cion_jax.data.dataset import is_dataset
    from cion_jax.denoise.denoise import check_settings

    check_settings(settings)
    if is_dataset(features):
        raise UserError(f"{features}: this is a dataset; `cion embed RUN {features} FEATURES` first, and give FEATURES")
    if images is not None and not features.is_dir():
        raise UserError(f"--images {images}: goes with a folder of features; leave it out")
    if pages[1] is not None and images is None:
        raise UserError(f"--people {pages[1]}: shows images; name the dataset that has them with --images")
    for path in (out, *pages):
        if path is not None and not path.parent.is_dir():
            raise UserError(f"{path}: there is no folder {path.parent}; make it first")


def _facts(features: Path, out: Path, settings: Denoising, split: str) -> "Facts":
    from cion_jax.commands.sources import facts_of
    from cion_jax.evaluate.feature_store import CARD

    file = features / CARD if features.is_dir() else features
    return facts_of("denoise", None, file, split=split, out=out.absolute(), **asdict(settings))


def _read(features: Path, split: str, settings: Denoising) -> "tuple[TrackedFeatures, str]":
    """Features with their tracklets, and the fingerprint of the images they were made from, "" if it is not known."""
    from cion_jax.denoise.inputs import TrackedFeatures, read_tracked
    from cion_jax.evaluate.feature_store import fingerprint_of, read_features

    if not features.is_dir():
        return read_tracked(features, settings.mirror), ""
    rows, index = read_features(features, split)
    tracked = TrackedFeatures(rows, *(index[name] for name in TrackedFeatures._fields[1:]))
    return tracked, fingerprint_of(features, split)


def _records(images: Path, split: str, features: Path, fingerprint: str) -> "Records":
    from cion_jax.data.records import Records

    records = Records(images, split)
    if records.card.fingerprint != fingerprint:
        raise UserError(f"--images {images}: not the data that {features} was made from; name that")
    return records


def _show(denoised: "Denoised") -> None:
    """Print the noise before and after each level, as a table, and how tau was found."""
    names = ("images", "identities", "beyond sigma", "pairs nearer than tau")
    table = Table("", *(Column(name, justify="right") for name in names))
    for level, noise in enumerate(denoised.noise):
        table.add_row(f"level {level}" if level else "raw tracklets", *(f"{count:,}" for count in noise))
    Console().print(table)
    settings = denoised.settings
    evidence = denoised.evidence
    tracklets = denoised.clusters.tracklets
    print(f"{tracklets.tracklet[-1] + 1:,} tracklets in {tracklets.video[-1] + 1:,} videos")
    if evidence is not None and settings.tau == evidence.tau and settings.tau:
        print(f"{evidence.links:,.0f} pairs of tracklets are near, {evidence.false:,.0f} of them by chance")
    print(
        f"sigma {settings.sigma:.4g}, tau {settings.tau:.4g}, whitened: {settings.whiten}; "
        f"{denoised.cannot_link:,} near pairs stay two, since a frame shows both"
    )
