"""How well are people followed in a video, beside its ground truth, by what `cion data import video` does by itself?

python -m experiments.benchmarks.video VIDEO GT.txt

The ground truth is in MOTChallenge's format, with frames counted from 1. IDF1 pairs each true person with at most one
tracklet over the whole video (Ristani et al., 2016, arXiv 1609.01775); recall, precision, MOTA, switches and fragments
are those of CLEAR MOT; boxes agree from an IoU of 0.5 on. HOTA (Luiten et al., 2021) is the mean over IoU of 0.05, 0.1,
..., 0.95.

A second table has what the tracker does wrong in the words of the drawn world, beside what `World` has by default.
"""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment
from tyro.conf import Positional

from cion_jax.config import Tracking, World, Writing
from cion_jax.data.boxes import BOXES_FILE
from cion_jax.data.records import Records
from cion_jax.errors import UserError
from experiments.benchmarks.command import command
from experiments.benchmarks.timing import environment
from tfrecords_tools.importers.lines import placed_lines
from tfrecords_tools.video.boxes import iou
from tfrecords_tools.video.importing import import_videos

_AGREE = 0.5
#: A tracklet jumps to somebody else if at least this share of its images does not show whom most of them show.
_JUMPS = 0.1

#: Rows of frame, person and box (left, top, right, bottom).
TRACKED = np.dtype([("frame", "<i8"), ("person", "<i8"), ("box", "<f8", 4)])


@dataclass(frozen=True)
class Overlaps:
    """What true and found boxes share, frame by frame."""

    truth: np.ndarray
    """(T,) person of each true box, numbered from 0."""
    found: np.ndarray
    """(F,) tracklet of each found box, numbered from 0."""
    frames: list[tuple[slice, slice, np.ndarray]]
    """For each frame: its true boxes, its found boxes, and their IoU."""


def overlaps_of(truth: np.ndarray, found: np.ndarray) -> Overlaps:
    """Compare two sets of TRACKED rows."""
    truth, found = (rows[np.argsort(rows["frame"], kind="stable")] for rows in (truth, found))
    frames = []
    for frame in np.union1d(truth["frame"], found["frame"]):
        true, seen = (slice(*np.searchsorted(rows["frame"], [frame, frame + 1])) for rows in (truth, found))
        frames.append((true, seen, iou(truth["box"][true], found["box"][seen])))
    people, tracklets = (np.unique(rows["person"], return_inverse=True)[1] for rows in (truth, found))
    return Overlaps(people, tracklets, frames)


def together(overlaps: Overlaps, least: float) -> np.ndarray:
    """(people, tracklets): in how many frames the two overlap by at least so much."""
    count = np.zeros((overlaps.truth.max(initial=-1) + 1, overlaps.found.max(initial=-1) + 1))
    for true, seen, shared in overlaps.frames:
        rows, columns = np.nonzero(shared >= least)
        np.add.at(count, (overlaps.truth[true][rows], overlaps.found[seen][columns]), 1)
    return count


def idf1(overlaps: Overlaps) -> float:
    """Twice the boxes on which both agree under the best one-to-one pairing, by all boxes of both."""
    count = together(overlaps, _AGREE)
    agreed = count[linear_sum_assignment(count, maximize=True)].sum()
    return float(2 * agreed / (len(overlaps.truth) + len(overlaps.found)))


def clear_mot(overlaps: Overlaps) -> dict[str, float]:
    """Recall, precision, MOTA, and how often a person changes the tracklet or is lost for a while."""
    hits = switches = fragments = 0
    last: dict[int, int] = {}  # the tracklet that each person had last
    seen_before: set[int] = set()  # who was found in the frame before
    for true, seen, shared in overlaps.frames:
        people, tracklets = overlaps.truth[true], overlaps.found[seen]
        stays = np.array([[last.get(person) == tracklet for tracklet in tracklets] for person in people])
        gains = np.where(shared >= _AGREE, shared + 10 * stays.reshape(shared.shape), 0)
        rows, columns = linear_sum_assignment(gains, maximize=True)
        pairs = {int(people[r]): int(tracklets[c]) for r, c in zip(rows, columns, strict=True) if gains[r, c]}
        hits += len(pairs)
        switches += sum(last.get(person, tracklet) != tracklet for person, tracklet in pairs.items())
        fragments += sum(person in last and person not in seen_before for person in pairs)
        last |= pairs
        seen_before = set(pairs)
    missed, wrong = len(overlaps.truth) - hits, len(overlaps.found) - hits
    return {
        "recall": hits / len(overlaps.truth),
        "precision": hits / max(len(overlaps.found), 1),
        "MOTA": 1 - (missed + wrong + switches) / len(overlaps.truth),
        "switches": switches,
        "fragments": fragments,
    }


def hota(overlaps: Overlaps) -> float:
    """The geometric mean of how well boxes are found and how well they are held together, over all thresholds."""
    alike = np.zeros((overlaps.truth.max(initial=-1) + 1, overlaps.found.max(initial=-1) + 1))
    for true, seen, shared in overlaps.frames:
        both = shared.sum(0)[None] + shared.sum(1)[:, None] - shared
        share = np.divide(shared, both, out=np.zeros_like(shared), where=both > 0)
        alike[np.ix_(overlaps.truth[true], overlaps.found[seen])] += share
    lengths = np.bincount(overlaps.truth)[:, None] + np.bincount(overlaps.found)[None]
    alike /= np.maximum(lengths - alike, 1e-9)  # of a person and a tracklet, over the whole video
    return float(np.mean([_hota_at(overlaps, alike, lengths, least) for least in np.arange(0.05, 0.99, 0.05)]))


def _hota_at(overlaps: Overlaps, alike: np.ndarray, lengths: np.ndarray, least: float) -> float:
    count = np.zeros_like(alike)
    for true, seen, shared in overlaps.frames:
        people, tracklets = overlaps.truth[true], overlaps.found[seen]
        rows, columns = linear_sum_assignment(alike[np.ix_(people, tracklets)] * shared, maximize=True)
        matched = shared[rows, columns] >= least - 1e-9
        np.add.at(count, (people[rows[matched]], tracklets[columns[matched]]), 1)
    hits = count.sum()
    association = (count * count / np.maximum(lengths - count, 1)).sum() / max(hits, 1)
    detection = hits / (len(overlaps.truth) + len(overlaps.found) - hits)
    return float(np.sqrt(detection * association))


def read_truth(path: Path) -> np.ndarray:
    """TRACKED rows of a ground truth in MOTChallenge's format; boxes with conf 0 or of other classes do not count."""
    rows = []
    for place, line in placed_lines(path):
        try:
            frame, person, left, top, width, height, active, *more = map(float, line.split(","))
        except ValueError:
            raise UserError(f"{place}: {line[:80]!r} is not frame,id,left,top,width,height,conf") from None
        if active and (len(more) != 2 or more[0] == 1):  # class and visibility; ten columns end in world coordinates
            rows.append((frame, person, (left - 1, top - 1, left + width - 1, top + height - 1)))
    return np.array(rows, TRACKED)


def read_found(dataset: Path) -> np.ndarray:
    """TRACKED rows of a dataset that was made of videos."""
    index, boxes = Records(dataset).index, np.load(dataset / BOXES_FILE)
    rows = np.empty(len(boxes), TRACKED)
    rows["frame"], rows["person"] = index["frame"], index["tracklet"]
    sides = (boxes["left"], boxes["top"], boxes["left"] + boxes["width"], boxes["top"] + boxes["height"])
    rows["box"] = np.stack(sides, axis=1)
    return rows


def people_shown(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """(F,) whom each found box shows, by the true boxes; -1 is nobody. Both are TRACKED rows."""
    shown = np.full(len(found), -1)
    for frame in np.unique(found["frame"]):
        true, seen = (np.flatnonzero(rows["frame"] == frame) for rows in (truth, found))
        shared = iou(truth["box"][true], found["box"][seen])
        rows, columns = linear_sum_assignment(np.where(shared >= _AGREE, shared, 0), maximize=True)
        agreed = shared[rows, columns] >= _AGREE
        shown[seen[columns[agreed]]] = truth["person"][true[rows[agreed]]]
    return shown


class Faults(NamedTuple):
    """What a tracker does wrong, as `World` has it."""

    switches: float
    """Share of tracklets in which it jumps to another person."""
    fragments: float
    """Tracklets of a person beyond the first: a share of the people."""
    background: float
    """Share of images that show no person at all."""


def faults(tracklet: np.ndarray, shown: np.ndarray) -> Faults:
    """Count them.

    Args:
        tracklet: (F,) the tracklet of each image.
        shown: (F,) whom it shows; -1 is nobody.
    """
    is_known = shown >= 0
    own = [shown[is_known & (tracklet == number)] for number in np.unique(tracklet[is_known])]
    main = [np.bincount(people).argmax() for people in own]
    jumps = [np.mean(people != most) >= _JUMPS for people, most in zip(own, main, strict=True)]
    people = len(np.unique(main))
    return Faults(float(np.mean(jumps)), (len(main) - people) / people, float(np.mean(~is_known)))


def main(video: Positional[Path], truth: Positional[Path], tracking: Tracking = Tracking()) -> None:
    """Import a video and compare its tracklets with the truth.

    Args:
        video: A video file.
        truth: Its ground truth in MOTChallenge's format.
    """
    with tempfile.TemporaryDirectory() as folder:
        began, worked = time.perf_counter(), time.process_time()
        import_videos(video, Path(folder, "out"), tracking, Writing(workers=1))
        seconds, core_seconds = time.perf_counter() - began, time.process_time() - worked
        found = read_found(Path(folder, "out"))
    true = read_truth(truth)
    overlaps = overlaps_of(true, found)
    scores = clear_mot(overlaps)
    print(f"{environment('numpy')}\n{video.name}: {seconds:,.0f} s, {core_seconds:,.0f} s of one core\n")
    print("| IDF1 | HOTA | MOTA | recall | precision | switches | fragments | people | tracklets | boxes |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    shares = (idf1(overlaps), hota(overlaps), *(scores[name] for name in ("MOTA", "recall", "precision")))
    people, tracklets = len(np.unique(true["person"])), len(np.unique(found["person"]))
    counts = (scores["switches"], scores["fragments"], people, tracklets, len(found))
    print(f"| {' | '.join([*(f'{share:.3f}' for share in shares), *(f'{count:,}' for count in counts)])} |")
    print("\n| | tracklets that jump to somebody else | walks that are broken | images of nobody |")
    print("|---|---|---|---|")
    for name, wrong in {
        "this film": faults(found["person"], people_shown(true, found)),
        "`World`": Faults(World.switches, World.fragments, World.background),
    }.items():
        print(f"| {name} | {' | '.join(f'{share:.0%}' for share in wrong)} |")


if __name__ == "__main__":
    command(main)
