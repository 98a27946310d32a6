"""Boxes of one frame after another joined to tracks.

The association follows ByteTrack (Zhang et al., 2022, arXiv 2110.06864): sure boxes are given to tracks first, and
tracks that are left may take boxes of which the detector was not sure. A track moves at a constant velocity (a Kalman
filter), and a box must overlap with where that leads and have the colours of the person.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from tfrecords_tools.video.boxes import centred, grown, iou

#: Scores: below the first a box is not looked at; from the second on it is sure; from the third on it begins a track.
UNSURE, SURE, BEGINS = 0.1, 0.5, 0.6

# Standard deviations as shares of the box's height: where it is measured, how it moves and gains speed in a step.
_MEASURED = 1 / 20
_MOVED = 1 / 20
_SPED_UP = 1 / 160

_SURE_OVERLAP = 0.2
_UNSURE_OVERLAP = 0.4
_MARGIN = 0.2  # boxes are grown by this share before their overlap is taken, so that small ones are not lost
_SAME_COLOURS = 0.7  # least likeness
_COLOURS_KEPT = 0.9  # of a track's colours with each new box
_PATIENCE = 1.0  # seconds without a box after which a track ends; `links` looks further
_ENDS = 10  # looks at the beginning and at the end of a track, of which the colours are kept


@dataclass
class Track:
    """A person who is followed."""

    state: np.ndarray
    """(2, 4): centre x, centre y, width and height, and what they change by in a step."""
    covariance: np.ndarray
    """(2, 2, 4): of each of the four and its change."""
    colours: np.ndarray
    """What the person looks like, of length 1."""
    step: int
    """When it got its last box, in frames that were looked at."""
    frames: list[int]
    boxes: list[np.ndarray]
    scores: list[float]
    first: list[np.ndarray]
    """Colours of the first boxes."""
    last: deque[np.ndarray]
    """Colours of the last boxes."""

    def predict(self) -> None:
        """Go on to the next frame."""
        height = self.state[0, 3]
        self.state[0] += self.state[1]
        self.covariance[0] += self.covariance[1]
        self.covariance[:, 0] += self.covariance[:, 1]
        self.covariance[0, 0] += (_MOVED * height) ** 2
        self.covariance[1, 1] += (_SPED_UP * height) ** 2

    def correct(self, frame: int, box: np.ndarray, score: float, colours: np.ndarray) -> None:
        """Take a box of this frame."""
        gain = self.covariance[:, 0] / (self.covariance[0, 0] + (_MEASURED * (box[3] - box[1])) ** 2)
        self.state += gain * (centred(box) - self.state[0])
        self.covariance -= gain[:, None] * self.covariance[0][None]
        mixed = _COLOURS_KEPT * self.colours + (1 - _COLOURS_KEPT) * colours
        self.colours = mixed / np.maximum(np.linalg.norm(mixed), 1e-9)
        self.frames.append(frame)
        self.boxes.append(box)
        self.scores.append(score)
        if len(self.first) < _ENDS:
            self.first.append(colours)
        self.last.append(colours)

    @property
    def box(self) -> np.ndarray:
        """Left, top, right and bottom where the person is thought to be."""
        centre, sides = self.state[0, :2], self.state[0, 2:]
        return np.concatenate([centre - sides / 2, centre + sides / 2])


def _begin(frame: int, step: int, box: np.ndarray, score: float, colours: np.ndarray) -> Track:
    height = box[3] - box[1]
    covariance = np.zeros((2, 2, 4))
    covariance[0, 0] = (2 * _MEASURED * height) ** 2
    covariance[1, 1] = (10 * _SPED_UP * height) ** 2  # nothing is known of the speed
    state = np.stack([centred(box), np.zeros(4)])
    ends = deque([colours], maxlen=_ENDS)
    return Track(state, covariance, colours, step, [frame], [box], [score], [colours], ends)


class Tracker:
    """Follows people through the frames of one stretch."""

    def __init__(self, rate: float):
        """Begin; `rate` frames a second are looked at."""
        self._patience = max(round(_PATIENCE * rate), 2)
        self._step = 0
        self._active: list[Track] = []
        self._ended: list[Track] = []

    def update(self, frame: int, boxes: np.ndarray, scores: np.ndarray, colours: np.ndarray) -> None:
        """Take the boxes of the next frame, with a row of colours for each."""
        self._step += 1
        for track in self._active:
            track.predict()

        def give(tracks: list[Track], numbers: np.ndarray, least: float) -> np.ndarray:
            """Give boxes to tracks; returns the numbers of the boxes that no track took."""
            pairs = _pairs(tracks, boxes[numbers], colours[numbers], least)
            for row, column in pairs:
                number = numbers[column]
                tracks[row].correct(frame, boxes[number], float(scores[number]), colours[number])
                tracks[row].step = self._step
            return np.delete(numbers, [column for _, column in pairs])

        free = give(self._active, np.flatnonzero(scores >= SURE), _SURE_OVERLAP)
        waiting = [track for track in self._active if self._step - 2 <= track.step < self._step]
        give(waiting, np.flatnonzero((scores >= UNSURE) & (scores < SURE)), _UNSURE_OVERLAP)
        for number in free[scores[free] >= BEGINS]:
            self._active.append(_begin(frame, self._step, boxes[number], float(scores[number]), colours[number]))
        lost = [self._step - track.step > (self._patience if len(track.frames) > 2 else 1) for track in self._active]
        self._ended += [track for track, is_lost in zip(self._active, lost, strict=True) if is_lost]
        self._active = [track for track, is_lost in zip(self._active, lost, strict=True) if not is_lost]

    def tracks(self) -> list[Track]:
        """All tracks of the stretch, in the order of their first frames."""
        return sorted(self._ended + self._active, key=lambda track: (track.frames[0], *track.boxes[0]))


def _pairs(tracks: list[Track], boxes: np.ndarray, colours: np.ndarray, least: float) -> list[tuple[int, int]]:
    """Which track takes which box: those that overlap and look alike, so that both are most over all pairs."""
    if not tracks or not len(boxes):
        return []
    overlap = iou(grown(np.array([track.box for track in tracks]), _MARGIN), grown(boxes, _MARGIN))
    likeness = np.array([track.colours for track in tracks]) @ colours.T
    allowed = (overlap >= least) & (likeness >= _SAME_COLOURS)
    rows, columns = linear_sum_assignment(np.where(allowed, overlap + likeness, 0), maximize=True)
    taken = allowed[rows, columns]
    return list(zip(rows[taken].tolist(), columns[taken].tolist(), strict=True))
