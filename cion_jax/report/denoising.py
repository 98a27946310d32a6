"""The report of denoising: noise after each level, how tau was chosen, distances, and identities in pictures."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from cion_jax.data.records import Records
from cion_jax.denoise.denoise import Denoised
from cion_jax.denoise.inputs import TrackedFeatures
from cion_jax.report.linked import dropped_images, merged_identities, pairs_not_linked
from cion_jax.report.page import Heading, Part, page, paragraph, subheading, table, take_care
from cion_jax.report.photos import Photo, photograph, strip
from cion_jax.report.tau import choice_of_tau, distances_seen
from tfrecords_tools.sheet import spread

#: Identities that are shown under a heading.
ROWS = 6
#: Images of each.
COLUMNS = 10
_LEVELS = ("raw tracklets", "1: in a tracklet", "2: in a video", "3: across videos")
_SPACES = {
    "total": "after whitening, so that images vary alike in every direction",
    "within": "after whitening, so that the images of one tracklet vary alike in every direction",
    "none": "as the features are",
}


def denoising(tracked: TrackedFeatures, denoised: Denoised, records: Records | None = None) -> str:
    """The page, as HTML. With the records of the images it also shows pictures."""
    return page("Who is who among tracklets", denoising_sections(tracked, denoised, records))


def denoising_sections(
    tracked: TrackedFeatures,
    denoised: Denoised,
    records: Records | None = None,
    title: Callable[[str], Part] = Heading,
) -> Iterator[Part]:
    """The parts of the page; `title` makes the heading of a section."""
    yield paragraph(_summary(denoised))
    for warning in denoised.warnings:
        yield take_care(warning)
    yield title("Noise, level by level")
    yield noise_table(denoised.noise)
    yield paragraph(_about_noise(denoised))
    if records is not None:
        yield title("The largest merged identities")
        yield from merged_identities(tracked, denoised, records)
        yield title("Images that were dropped")
        yield from dropped_images(tracked, denoised, records)
        yield title("The nearest tracklets that were not linked")
        yield from pairs_not_linked(tracked, denoised, records)
    yield title("How tau was chosen")
    yield from choice_of_tau(denoised)
    yield title("Distances")
    yield from distances_seen(denoised)


def _summary(denoised: Denoised) -> str:
    settings = denoised.settings
    clusters = denoised.clusters
    tracklets = len(clusters.members.names)
    kept = np.count_nonzero(denoised.labels >= 0)
    return (
        f"{tracklets:,} tracklets of {len(np.unique(clusters.video)):,} videos became {denoised.labels.max() + 1:,} "
        f"identities; {kept:,} of {len(denoised.labels):,} images were kept. An image farther than sigma = "
        f"{settings.sigma:.4g} from the centroid of its tracklet is dropped. Identities less than tau = "
        f"{settings.tau:.4g} apart, on average over their tracklets, are merged. Tracklets are compared "
        f"{_SPACES[settings.whiten]} (space: {settings.whiten}). Distances are 1 - cosine."
    )


def _about_noise(denoised: Denoised) -> str:
    text = (
        "Beyond sigma: images farther than sigma from the centroid of each tracklet of their identity. Pairs nearer "
        "than tau: identities that are less than tau apart on average. Both should be 0 in the end."
    )
    if not denoised.cannot_link:
        return text
    return f"{text} {denoised.cannot_link:,} near pairs stay two identities since a frame shows both."


def noise_table(noise: Iterable[Sequence[int]]) -> str:
    """A table of `Noise` of denoise: of the raw tracklets, and after each level."""
    names = ("", "images", "identities", "beyond sigma", "pairs nearer than tau")
    return table(names, [(name, *map(int, row)) for name, row in zip(_LEVELS, noise, strict=False)])


def sheets(records: Records, labels: np.ndarray) -> Iterator[str]:
    """The largest and the most merged identities of a labelling, with some images of each.

    Args:
        records: The split.
        labels: (N,) whom each image shows; -1 is nobody.
    """
    known = np.flatnonzero(labels >= 0)
    names, member, images = np.unique(labels[known], return_inverse=True, return_counts=True)
    pairs = np.unique(np.stack([member, records.index["tracklet"][known]]), axis=1)
    shown = {
        "The largest identities": (images, "images"),
        "The most merged identities": (np.bincount(pairs[0]), "tracklets"),
    }
    for title, (counts, what) in shown.items():
        yield subheading(title)
        for each in np.argsort(-counts, kind="stable")[:ROWS]:
            numbers = spread(known[member == each], COLUMNS)
            yield strip(f"Identity {names[each]}: {counts[each]} {what}", _photos(records, names[each], numbers))


def _photos(records: Records, label: int, numbers: np.ndarray) -> Iterator[Photo]:
    for number in numbers:
        camera = records.index["camera"][number]
        says = f"image {number} of identity {label}, camera {camera}"
        yield Photo(photograph(records, number), says, f"camera {camera}")
