"""What denoising saw and did: distances with sigma and tau among them, counts level by level, and who was found."""

from collections.abc import Iterator

import numpy as np
from matplotlib.figure import Figure

from cion_jax.data.records import Records
from cion_jax.denoise.labelling import Denoised
from cion_jax.denoise.notion import Identities, distances, identities
from cion_jax.denoise.sightings import Sightings
from cion_jax.denoise.thresholds import in_a_frame
from cion_jax.report.page import heading, page, paragraph, picture, table
from tfrecords_tools.sheet import sheet_of, spread

#: Pairs of tracklets that are drawn at the most, and rows and images in a row of a sheet.
PAIRS, ROWS, COLUMNS = 1 << 17, 6, 10
_STEPS = ("raw tracklets", "1: in a tracklet", "2: in a video", "3: across videos")


def denoising(sightings: Sightings, found: Denoised, records: Records | None = None) -> str:
    """The page, as HTML; with the images' records it shows some of the people."""
    return page("Who is who among tracklets", _parts(sightings, found, records))


def _parts(sightings: Sightings, found: Denoised, records: Records | None) -> Iterator[str]:
    settings, labels = found.settings, found.labels[sightings.place]
    kept = int((found.labels >= 0).sum())
    yield paragraph(
        f"{found.labels.max() + 1:,} identities among {kept:,} of {len(found.labels):,} images; sigma "
        f"{settings.sigma:.4g}, tau {settings.tau:.4g}, range {settings.range}, at least {settings.min_images} images."
    )
    yield heading("Noise, level by level")
    names = ("", "images", "identities", "beyond sigma", "pairs nearer than tau")
    yield table(names, [(name, *noise) for name, noise in zip(_STEPS, found.noise, strict=False)])
    yield paragraph(f"Pairs nearer than tau that the last level would not make one: {found.refusals()}.")
    yield picture(_levels(found), "Bars: images beyond sigma and pairs nearer than tau, before and after each level")
    yield heading("Distances")
    raw, people = sightings.raw, identities(sightings.features, labels)
    yield picture(
        _inside(raw, people, found),
        "Histograms of the distances of images from their centroids, with sigma marked",
        "Of an image from its tracklet's centroid, before, and from its identity's, after.",
    )
    yield picture(
        _between(sightings, raw, found),
        "Histograms of the distances between centroids of tracklets, with tau marked",
        "Between centroids of tracklets. Those that share a frame are two people. The logarithmic scale shows the few "
        "pairs across videos that are one.",
    )
    if records is not None:
        yield from _sheets(sightings, people, records)


def _levels(found: Denoised) -> Figure:
    figure = Figure((8, 2.6))
    for axes, name, title in zip(
        figure.subplots(1, 2), ("inconsistent", "close"), ("images beyond sigma", "pairs nearer than tau"), strict=True
    ):
        axes.bar(_STEPS[: len(found.noise)], [getattr(noise, name) for noise in found.noise], color="#4477aa")
        axes.set_title(title)
        axes.set_ylim(bottom=0)
        axes.tick_params(axis="x", labelrotation=20)
    figure.tight_layout()
    return figure


def _inside(raw: Identities, people: Identities, found: Denoised) -> Figure:
    figure = Figure((8, 3))
    axes = figure.subplots()
    bins = np.linspace(0, max(raw.apart.max(), float(found.settings.sigma)) * 1.02 + 1e-6, 121).tolist()
    axes.hist(raw.apart, bins, color="#bbbbbb", label="its tracklet, before")
    axes.hist(people.apart, bins, histtype="step", color="#4477aa", label="its identity, after")
    return _finished(figure, "sigma", float(found.settings.sigma))


def _between(sightings: Sightings, raw: Identities, found: Denoised) -> Figure:
    figure, random, tau = Figure((8, 3)), np.random.default_rng(0), float(found.settings.tau)
    axes = figure.subplots()
    video, centers = sightings.video[sightings.bounds[:-1]], raw.centers
    pairs = random.integers(len(video), size=(PAIRS, 2))
    drawn = {
        "in different videos": pairs[video[pairs[:, 0]] != video[pairs[:, 1]]],
        "in one frame": random.permutation(in_a_frame(sightings))[:PAIRS],
    }
    apart = {name: distances(centers[some[:, 0]], centers[some[:, 1]]) for name, some in drawn.items() if len(some)}
    bins = np.linspace(0, max([tau, *(values.max() for values in apart.values())]) * 1.02, 121)
    for name, values in apart.items():
        counts, _ = np.histogram(values, bins)
        look = {"color": "#bbbbbb", "fill": True} if name == "in different videos" else {"color": "#cc3311"}
        axes.stairs(counts / len(values), bins, label=name, **look)
    axes.set_yscale("log")
    return _finished(figure, "tau", tau)


def _finished(figure: Figure, name: str, value: float) -> Figure:
    (axes,) = figure.axes
    axes.axvline(value, color="black", linestyle="--", label=f"{name} = {value:.3g}")
    axes.set_xlabel("distance, 1 - cosine")
    axes.set_ylabel("share of pairs" if name == "tau" else "images")
    axes.legend(loc="upper center" if name == "tau" else "upper right")
    return figure


def _sheets(sightings: Sightings, people: Identities, records: Records) -> Iterator[str]:
    images = np.diff(np.append(np.flatnonzero(np.diff(people.member, prepend=-1)), len(people.member)))
    pairs = np.unique(np.stack([people.member, sightings.tracklet[people.images]]), axis=1)
    tracklets = np.bincount(pairs[0], minlength=len(images))
    doubt = np.bincount(people.member, people.apart, len(images)) / images * (tracklets > 1)
    told = {
        "The largest identities": (images, "Those with the most images"),
        "The most merged identities": (tracklets, "Those of the most tracklets"),
        "The most doubtful identities": (doubt, "Of several tracklets, with images the farthest from the centroid"),
    }
    for title, (values, which) in told.items():
        chosen = np.argsort(-values, kind="stable")[:ROWS]
        rows = {
            int(people.names[each]): sightings.place[spread(people.images[people.member == each], COLUMNS)]
            for each in chosen
        }
        yield heading(title)
        yield picture(sheet_of(records, rows), f"{title}, one in each row", f"{which}; one in each row.")
