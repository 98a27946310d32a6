"""What denoising saw and did: distances with sigma and tau among them, counts level by level, and who was found."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from matplotlib.figure import Figure

from cion_jax.data.records import Records
from cion_jax.denoise.labelling import Denoised
from cion_jax.denoise.notion import Identities, distances, identities
from cion_jax.denoise.sightings import Sightings
from cion_jax.denoise.thresholds import in_a_frame
from cion_jax.report.page import beside, heading, page, paragraph, picture, subheading, table
from cion_jax.report.photos import Photo, photograph, strip
from tfrecords_tools.sheet import spread

#: Pairs of tracklets that are drawn at the most, and rows and images in a row of a sheet.
PAIRS, ROWS, COLUMNS = 1 << 17, 6, 10
_STEPS = ("raw tracklets", "1: in a tracklet", "2: in a video", "3: across videos")


def denoising(sightings: Sightings, found: Denoised, records: Records | None = None) -> str:
    """The page, as HTML; with the images' records it shows some of the people."""
    return page("Who is who among tracklets", told_of(sightings, found, records))


def told_of(sightings: Sightings, found: Denoised, records: Records | None = None) -> Iterator[str]:
    """The parts of the page."""
    settings, labels = found.settings, found.labels[sightings.place]
    kept = int((found.labels >= 0).sum())
    yield paragraph(
        f"{found.labels.max() + 1:,} identities among {kept:,} of {len(found.labels):,} images; sigma "
        f"{settings.sigma:.4g}, tau {settings.tau:.4g}, range {settings.range}, at least {settings.min_images} images."
    )
    yield heading("Noise, level by level")
    yield noise_table(found.noise)
    yield paragraph(f"Pairs nearer than tau that the last level would not make one: {found.refusals()}.")
    titles = {"inconsistent": "images beyond sigma", "close": "pairs nearer than tau"}
    yield beside(
        *(
            picture(_levels(found, name, title), f"Bars: {title}, before and after each level")
            for name, title in titles.items()
        )
    )
    yield heading("Distances")
    raw, people = sightings.raw, identities(sightings.features, labels)
    yield beside(
        picture(
            _inside(raw, people, found),
            "Histograms of the distances of images from their centroids, with sigma marked",
            "Of an image from its tracklet's centroid, before, and from its identity's, after.",
        ),
        picture(
            _between(sightings, raw, found),
            "Histograms of the distances between centroids of tracklets, with tau marked",
            "Between centroids of tracklets. Those that share a frame are two people. The logarithmic scale shows the "
            "few pairs across videos that are one.",
        ),
    )
    if records is not None:
        apart = np.zeros(len(found.labels))
        apart[sightings.place[people.images]] = people.apart
        yield from sheets(records, found.labels, apart)


def noise_table(noise: Iterable[Sequence[int]]) -> str:
    """Rows of denoise.notion.Noise: of the raw tracklets, and after each level."""
    names = ("", "images", "identities", "beyond sigma", "pairs nearer than tau")
    return table(names, [(name, *map(int, row)) for name, row in zip(_STEPS, noise, strict=False)])


def _levels(found: Denoised, name: str, title: str) -> Figure:
    figure = Figure((4.4, 2.6), layout="constrained")
    axes = figure.subplots()
    axes.bar(_STEPS[: len(found.noise)], [getattr(noise, name) for noise in found.noise], color="#4477aa")
    axes.set_title(title)
    axes.set_ylim(bottom=0)
    axes.tick_params(axis="x", labelrotation=20)
    return figure


def _inside(raw: Identities, people: Identities, found: Denoised) -> Figure:
    figure = Figure((4.4, 3), layout="constrained")
    axes = figure.subplots()
    bins = np.linspace(0, max(raw.apart.max(), float(found.settings.sigma)) * 1.02 + 1e-6, 121).tolist()
    axes.hist(raw.apart, bins, color="#bbbbbb", label="its tracklet, before")
    axes.hist(people.apart, bins, histtype="step", color="#4477aa", label="its identity, after")
    return _finished(figure, "sigma", float(found.settings.sigma))


def _between(sightings: Sightings, raw: Identities, found: Denoised) -> Figure:
    random, tau = np.random.default_rng(0), float(found.settings.tau)
    figure = Figure((4.4, 3), layout="constrained")
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
    axes.locator_params(axis="x", nbins=6)
    figure.legend(loc="outside upper left", ncols=2, frameon=False)
    return figure


def sheets(records: Records, labels: np.ndarray, apart: np.ndarray | None = None) -> Iterator[str]:
    """Some of the people that a labelling of a split has, with images of theirs.

    Args:
        records: The split.
        labels: Who each image shows; -1 is nobody.
        apart: How far each image is from its identity's centroid, if that is known.
    """
    known = np.flatnonzero(labels >= 0)
    names, member, images = np.unique(labels[known], return_inverse=True, return_counts=True)
    pairs = np.unique(np.stack([member, records.index["tracklet"][known]]), axis=1)
    tracklets = np.bincount(pairs[0])
    told: dict[str, tuple[np.ndarray, str]] = {
        "The largest identities": (images, "{} images"),
        "The most merged identities": (tracklets, "{} tracklets"),
    }
    if apart is not None:
        doubt = np.bincount(member, apart[known]) / images * (tracklets > 1)
        told["The most doubtful identities"] = (
            doubt,
            "several tracklets, at a mean distance of {:.3f} from the centroid",
        )
    for title, (values, what) in told.items():
        yield subheading(title)
        for each in np.argsort(-values, kind="stable")[: min(ROWS, np.count_nonzero(values))]:
            numbers = spread(known[member == each], COLUMNS)
            yield strip(f"Identity {names[each]}: {what.format(values[each])}", _photos(records, names[each], numbers))


def _photos(records: Records, label: int, numbers: np.ndarray) -> Iterator[Photo]:
    for number in numbers:
        camera = records.index["camera"][number]
        says = f"image {number} of identity {label}, camera {camera}"
        yield Photo(photograph(records, number), says, f"camera {camera}")
