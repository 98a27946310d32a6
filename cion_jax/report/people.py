"""The page of people: a row for each, with where and when they were seen, the best pictures first, doubtful ones last.

An image is the better the nearer it is to the mean of its person's features, as denoising compared them. Doubtful are
images that denoising left out of a person's tracklets, and people who were seen so shortly that they may be nobody.
"""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

from cion_jax.data.boxes import read_boxes
from cion_jax.data.records import Records
from cion_jax.denoise.denoise import Denoised
from cion_jax.denoise.inputs import TrackedFeatures
from cion_jax.denoise.vectors import distances, unit
from cion_jax.report.page import Heading, Part, page, paragraph, subheading, take_care
from cion_jax.report.photos import Photo, photograph, strip
from tfrecords_tools.tracklet_names import read_names

#: Rows of a page, at the most, and pictures of each.
ROWS = 200
BEST = 8
DOUBTFUL = 3
#: Somebody who is seen for fewer seconds, or in fewer images where times are not known, is doubtful.
SECONDS = 2.0
IMAGES = 20
#: A time shorter than this, in the same units, is not told of somebody who is also seen for longer.
SHORT = 1.0
SHORT_FRAMES = 10
#: Seconds without somebody after which the next time of being seen begins; frames where times are not known.
AWAY = 5.0
AWAY_FRAMES = 100


class Seen(NamedTuple):
    """What is known of the N images."""

    records: Records
    person: np.ndarray
    """(N,) whose image it is, or would be if it had not been left out; -1 for nobody."""
    distance: np.ndarray
    """(N,) how far it is from the person's mean; infinite if it was left out."""
    file: np.ndarray
    """(N,) the name of the video file, or the number of the video."""
    time: np.ndarray
    """(N,) when it is shown: in seconds, or as a frame."""
    in_seconds: bool
    main: np.ndarray
    """(N,) whom most of the images of its tracklet show."""


def people_page(tracked: TrackedFeatures, denoised: Denoised, records: Records | None) -> str:
    """The page, as HTML; records are those of the images."""
    assert records is not None, "there are no images to show"
    return page("Who is in the videos", _parts(tracked, denoised, _seen(tracked, denoised, records)))


def _seen(tracked: TrackedFeatures, denoised: Denoised, records: Records) -> Seen:
    tracklets = denoised.clusters.tracklets
    label = denoised.labels[tracklets.place]
    kept = np.flatnonzero(label >= 0)
    sums = np.zeros((label.max(initial=-1) + 1, tracklets.features.shape[1]))
    np.add.at(sums, label[kept], tracklets.features[kept])
    distance = np.full(len(denoised.labels), np.inf)
    distance[tracklets.place[kept]] = distances(tracklets.features[kept], unit(sums)[label[kept]])
    boxes = read_boxes(records)
    index = records.index
    names = _files(records)
    file = [names.get(number, f"video {video}") for number, video in index[["tracklet", "video"]].tolist()]
    time = np.array(index["frame"], float) if boxes is None else np.array(boxes["seconds"], float)
    main = _main(denoised.labels, tracked.tracklet)
    person = np.where(denoised.labels < 0, main, denoised.labels)
    return Seen(records, person, distance, np.array(file), time, boxes is not None, main)


def _files(records: Records) -> dict[int, str]:
    """The video file of each tracklet, by its number, without its folder where no two files have the same name."""
    names = read_names(records.folder, records.split)
    paths = {number: PurePosixPath(video.rsplit("@", 1)[0]) for number, _, video, _ in names}
    is_short = len({path.name for path in paths.values()}) == len({*paths.values()})
    return {number: path.name if is_short else str(path) for number, path in paths.items()}


def _main(labels: np.ndarray, tracklet: np.ndarray) -> np.ndarray:
    """(N,) the label that most images of an image's tracklet have; -1 where none of them has one."""
    known = (labels >= 0) & (tracklet >= 0)
    pairs, counts = np.unique(np.stack([tracklet[known], labels[known]]), axis=1, return_counts=True)
    order = np.lexsort((counts, pairs[0]))
    # Of several labels of a tracklet the last one stays, which is the most frequent.
    main = dict(zip(pairs[0][order].tolist(), pairs[1][order].tolist(), strict=True))
    return np.array([main.get(number, -1) for number in tracklet.tolist()])


def _parts(tracked: TrackedFeatures, denoised: Denoised, seen: Seen) -> Iterator[Part]:
    counts = np.bincount(denoised.labels[denoised.labels >= 0])
    order = np.argsort(-counts, kind="stable")
    lasted = np.array([_lasting(seen, label) for label in range(len(counts))])
    doubtful = lasted < (SECONDS if seen.in_seconds else IMAGES)
    sure, unsure = order[~doubtful[order]], order[doubtful[order]]
    yield paragraph(_summary(tracked, seen, len(sure), len(unsure)))
    for warning in denoised.warnings:
        yield take_care(warning)
    if len(sure) > ROWS:
        yield paragraph(f"The {ROWS} who were seen the longest are shown.")
    for label in sure[:ROWS].tolist():
        yield from _row(seen, label, "")
    if len(unsure):
        yield Heading("Doubtful: seen too shortly to be sure that it is somebody else, or anybody")
        for label in unsure[: max(ROWS - len(sure), 0)].tolist():
            yield from _row(seen, label, "doubtful")


def _summary(tracked: TrackedFeatures, seen: Seen, sure: int, unsure: int) -> str:
    files = _count(len(np.unique(seen.file)), "video", "videos")
    tracklets = _count(len(np.unique(seen.records.index["tracklet"])), "tracklet", "tracklets")
    doubtful = f", and {unsure} doubtful at the end" if unsure else ""
    unit = "minute and second" if seen.in_seconds else "number of the frame"
    return (
        f"{_count(sure, 'person', 'people')} in {files}{doubtful}, found among {tracklets}. Each has a row, with the "
        f"{unit} from which and until which they are seen; nobody is named, numbers are those of the labels. The best "
        "pictures come first. A dashed frame marks what is doubtful, and a question mark images that were left out "
        "because they fit the person badly. This page shows people: keep it as private as they are."
    )


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _lasting(seen: Seen, label: int) -> float:
    """For how long somebody is seen: in seconds, or images where times are not known."""
    own = np.flatnonzero((seen.person == label) & np.isfinite(seen.distance))
    if not seen.in_seconds:
        return float(len(own))
    return sum(last - first for _, first, last in _times(seen, own))


def _times(seen: Seen, numbers: np.ndarray) -> list[tuple[str, float, float]]:
    """The file, and from when to when, of each time that somebody is seen; short ones only if there are no others."""
    away, short = (AWAY, SHORT) if seen.in_seconds else (AWAY_FRAMES, SHORT_FRAMES)
    times = []
    for file in np.unique(seen.file[numbers]):
        own = np.sort(seen.time[numbers[seen.file[numbers] == file]])
        for part in np.split(own, np.flatnonzero(np.diff(own) > away) + 1):
            times.append((str(file), float(part[0]), float(part[-1])))
    return [each for each in times if each[2] - each[1] >= short] or times


def _row(seen: Seen, label: int, kind: str) -> Iterator[str]:
    own = np.flatnonzero(seen.person == label)
    kept = own[np.isfinite(seen.distance[own])]
    left_out = own[~np.isfinite(seen.distance[own])]
    yield subheading(f"Person {label}")
    caption = f"{_where(seen, kept)}. {_count(len(kept), 'image', 'images')}"
    caption += f" and {len(left_out):,} left out" if len(left_out) else ""
    tracklets = np.unique(seen.records.index["tracklet"][kept][seen.main[kept] == label])
    caption += f", {_count(len(tracklets), 'tracklet', 'tracklets')}."
    yield strip(caption, _photos(seen, label, kept, left_out, kind))


def _where(seen: Seen, numbers: np.ndarray) -> str:
    """Where and when somebody is seen, file by file."""
    files: dict[str, list[str]] = {}
    for file, first, last in _times(seen, numbers):
        files.setdefault(file, []).append(f"{_shown(seen, first)}\N{EN DASH}{_shown(seen, last)}")
    camera = seen.records.index["camera"][numbers]
    shared = len(np.unique(seen.records.index["camera"])) < len(np.unique(seen.file))  # somebody has said what they are
    cameras = f" (cameras {', '.join(map(str, np.unique(camera)))})" if shared else ""
    return "; ".join(f"{file} {', '.join(times)}" for file, times in files.items()) + cameras


def _shown(seen: Seen, time: float) -> str:
    if not seen.in_seconds:
        return f"{time:.0f}"
    return f"{int(time) // 60}:{int(time) % 60:02}"


def _photos(seen: Seen, label: int, kept: np.ndarray, left_out: np.ndarray, kind: str) -> Iterator[Photo]:
    """The best picture of each part of the time in which somebody is seen, and a few that were left out."""
    in_time = kept[np.lexsort((seen.time[kept], seen.file[kept]))]
    parts = [part for part in np.array_split(in_time, BEST) if len(part)]
    best = np.array([part[seen.distance[part].argmin()] for part in parts])
    for number in best[np.argsort(seen.distance[best], kind="stable")].tolist():
        when = _shown(seen, seen.time[number])
        says = f"person {label} in {seen.file[number]} at {when}"
        yield Photo(photograph(seen.records, number), says, when, kind)
    for number in (
        left_out[np.unique(np.linspace(0, len(left_out) - 1, DOUBTFUL, dtype=int))].tolist() if len(left_out) else []
    ):
        when = _shown(seen, seen.time[number])
        says = f"perhaps person {label} in {seen.file[number]} at {when}, left out"
        yield Photo(photograph(seen.records, number), says, f"{when} ?", "doubtful")
