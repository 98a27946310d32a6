"""The drawn world in pictures: people, and the tracker's mistakes, found with the truth, which no training sees."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from cion_jax.data.records import Records
from cion_jax.report.page import paragraph
from cion_jax.report.photos import Photo, photograph, strip
from tfrecords_tools.sheet import spread
from tfrecords_tools.world.walks import Fault

#: Images in a row.
COLUMNS = 10
#: People who are shown.
PEOPLE = 2
#: Images of each kind of bad box.
BOXES = 2
_BOXES = {
    Fault.DRIFT: "drifted",
    Fault.CUT: "cut off",
    Fault.WALKER: "passer-by",
    Fault.POLE: "post",
    Fault.CAR: "car",
}


class Tracked(NamedTuple):
    """Training images with the truth about them."""

    records: Records
    person: np.ndarray
    """(N,) whom each image shows; -1 is nobody."""
    fault: np.ndarray
    """(N,) what is wrong with its box: a `Fault`."""
    length: np.ndarray
    """(T,) images of each tracklet."""
    nobody: np.ndarray
    """(T,) how many of them show nobody."""
    main: np.ndarray
    """(T,) the person whom most of them show."""
    others: np.ndarray
    """(T,) how many of them show somebody else."""
    video: np.ndarray
    """(T,) the video of each tracklet."""


def tracked(records: Records, person: np.ndarray, fault: np.ndarray) -> Tracked:
    """Count whom the images of each tracklet show."""
    tracklet = np.array(records.index["tracklet"])
    counts = np.zeros((tracklet.max() + 1, person.max() + 2), int)  # the first column is nobody
    np.add.at(counts, (tracklet, person + 1), 1)
    people = counts[:, 1:]
    first_image = np.unique(tracklet, return_index=True)[1]
    return Tracked(
        records,
        person,
        fault,
        length=counts.sum(axis=1),
        nobody=counts[:, 0],
        main=people.argmax(axis=1),
        others=people.sum(axis=1) - people.max(axis=1),
        video=np.array(records.index["video"])[first_image],
    )


def whom(person: int) -> str:
    """Whom an image shows, in words."""
    return f"person {person}" if person >= 0 else "nobody"


def percent(share: float | np.floating) -> str:
    """A share in whole per cent; no line breaks before the sign."""
    return f"{100 * share:.0f}\N{NO-BREAK SPACE}%"


def drawn_world(seen: Tracked) -> Iterator[str]:
    """Some people, and an example of each mistake."""
    yield paragraph(_counts(seen))
    yield from _people(seen)
    yield from _switch(seen)
    yield from _fragment(seen)
    yield from _background(seen)
    yield from _bad_boxes(seen)


def _counts(seen: Tracked) -> str:
    _, tracklets = np.unique(np.stack([seen.main, seen.video]), axis=1, return_counts=True)
    bad = (seen.fault != Fault.NONE) & (seen.person >= 0)
    return (
        f"{len(seen.person):,} images of {len(np.unique(seen.person[seen.person >= 0])):,} people in "
        f"{len(np.unique(seen.video)):,} videos, cut out by a tracker as {len(seen.length):,} tracklets. It errs: "
        f"{percent(np.mean(seen.others > 0))} of the tracklets show more than one person, "
        f"{percent(np.mean(tracklets > 1))} of people's walks through a video are broken into several tracklets, "
        f"{percent(np.mean(seen.person < 0))} of the images show nobody, and {percent(np.mean(bad))} are badly cut out "
        "or show somebody half hidden. Training and denoising are told nothing of this."
    )


def _people(seen: Tracked) -> Iterator[str]:
    """The people who are seen in the most videos, with an image from each."""
    good = np.flatnonzero((seen.person >= 0) & (seen.fault == Fault.NONE))
    video = seen.records.index["video"]
    pairs = np.unique(np.stack([seen.person[good], video[good]]), axis=1)
    videos = np.bincount(pairs[0])
    for person in np.argsort(-videos, kind="stable")[:PEOPLE]:
        images = good[seen.person[good] == person]
        one_each = images[np.unique(video[images], return_index=True)[1]]
        caption = f"Person {person}, in {videos[person]} videos. Only looks can tell that this is one person."
        yield strip(caption, _photos(seen, one_each[:COLUMNS], lambda number: f"video {video[number]}"))


def _switch(seen: Tracked) -> Iterator[str]:
    """The tracklet with the most images of other people than its main one."""
    worst = int(seen.others.argmax())
    if seen.others[worst]:
        numbers = _images(seen, worst)
        first = next(person for person in seen.person[numbers] if person >= 0)
        yield strip(
            f"A switch: tracklet {worst} begins with {whom(first)} and goes on with somebody else (dashed).",
            _photos(seen, numbers, lambda number: whom(seen.person[number]), first),
        )


def _fragment(seen: Tracked) -> Iterator[str]:
    """Two tracklets of one person in one video: the pair whose shorter tracklet is the longest."""
    pair = max(_fragments(seen), key=lambda pair: seen.length[pair[1]], default=None)
    if pair:
        first, second = sorted(pair)
        numbers = np.concatenate([_images(seen, each, COLUMNS // 2) for each in (first, second)])
        tracklet = seen.records.index["tracklet"]
        yield strip(
            f"A fragment: person {seen.main[first]} walks through video {seen.video[first]} once, and the tracker "
            f"makes two of it, tracklets {first} and {second}.",
            _photos(seen, numbers, lambda number: "the first" if tracklet[number] == first else "the second"),
        )


def _fragments(seen: Tracked) -> Iterator[tuple[int, int]]:
    """Pairs of tracklets that show the same person in the same video and nobody else, the longer one first."""
    alone = np.flatnonzero((seen.others == 0) & (seen.nobody < seen.length))
    longer: dict[tuple[int, int], int] = {}
    for tracklet in map(int, alone[np.argsort(-seen.length[alone], kind="stable")]):
        walk = int(seen.main[tracklet]), int(seen.video[tracklet])
        if walk in longer:
            yield longer[walk], tracklet
        longer.setdefault(walk, tracklet)


def _background(seen: Tracked) -> Iterator[str]:
    """The tracklet with many images of one person and many of nobody."""
    both = np.minimum(seen.nobody, seen.length - seen.nobody)
    clearest = int(np.where(seen.others == 0, both, 0).argmax())
    if seen.nobody[clearest]:
        yield strip(
            f"Background: some boxes of tracklet {clearest} have nobody in them (dashed).",
            _photos(seen, _images(seen, clearest), lambda number: whom(seen.person[number]), seen.main[clearest]),
        )


def _bad_boxes(seen: Tracked) -> Iterator[str]:
    """Images of each kind of bad box."""
    kinds = [np.flatnonzero((seen.fault == fault) & (seen.person >= 0)) for fault in _BOXES]
    numbers = [number for some in kinds if len(some) for number in spread(some, BOXES)]
    if numbers:
        yield strip(
            "Bad boxes: they drift off, cut people off, or something stands in front.",
            _photos(seen, numbers, lambda number: _BOXES[Fault(seen.fault[number])]),
        )


def _images(seen: Tracked, tracklet: int, most: int = COLUMNS) -> np.ndarray:
    return spread(np.flatnonzero(seen.records.index["tracklet"] == tracklet), most)


def _photos(
    seen: Tracked,
    numbers: Iterable[int],
    caption: Callable[[int], str],
    expected: int | None = None,
) -> Iterator[Photo]:
    """Photographs with captions; with `expected`, their frames say whether an image shows that person."""
    for number in numbers:
        person = seen.person[number]
        kind = "" if expected is None else "right" if person == expected else "wrong"
        yield Photo(photograph(seen.records, number), f"image {number}: {whom(person)}", caption(number), kind)
