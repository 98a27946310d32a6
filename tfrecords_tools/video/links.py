"""Tracks that broke off, joined where the same person went on; and tracks as rows, one for each frame."""

import numpy as np
from scipy.optimize import linear_sum_assignment

from tfrecords_tools.video.boxes import centred
from tfrecords_tools.video.tracker import Track

#: A box of a tracklet: its frame, and when that is shown, in the units of its stream and in seconds of the file; the
#: number of the tracklet in its stretch, left, top, right and bottom, and the score that the detector gave; 0 where the
#: box was filled in between two that were found.
ROW = np.dtype(
    [("frame", "<i4"), ("pts", "<i8"), ("seconds", "<f4"), ("tracklet", "<i4"), ("box", "<f4", 4), ("score", "<f4")]
)

_FILLED = 0.5  # seconds: in a longer gap the person is out of sight, and a picture would show somebody else

_ALIKE = 0.8  # least likeness of the colours at the end of one track and at the beginning of the next
_FASTEST = 1.5  # heights of a person a second: about 2.5 m/s
_OFF = 0.5  # heights by which a person may be off at once
_RESIZED = 1.35  # times by which the height may change
_SPEED_OVER = 10  # boxes from which the speed at the end of a track is taken
_SIZE_OVER = 3


def link(tracks: list[Track], rate: float, bridge: float) -> list[Track]:
    """Join ends of tracks to beginnings of later ones, where colours, place and size allow it, best together.

    Args:
        tracks: All tracks of a stretch.
        rate: Frames of the video a second.
        bridge: The longest gap, in seconds.
    """
    tracks = [track for track in tracks if len(track.frames) > 2]
    if not tracks:
        return []
    gains = _gains(tracks, rate, bridge)
    rows, columns = linear_sum_assignment(gains, maximize=True)
    following = {row: column for row, column in zip(rows.tolist(), columns.tolist(), strict=True) if gains[row, column]}
    firsts = sorted(set(range(len(tracks))) - set(following.values()))
    return [_joined(tracks, first, following) for first in firsts]


def _gains(tracks: list[Track], rate: float, bridge: float) -> np.ndarray:
    """What it is worth to join the end of each track with the beginning of each; 0 where that is not allowed."""
    begins = np.array([track.frames[0] for track in tracks])
    ends = np.array([track.frames[-1] for track in tracks])
    seconds = (begins[None] - ends[:, None]) / rate
    likeness = (
        _unit([np.mean(track.last, axis=0) for track in tracks])
        @ _unit([np.mean(track.first, axis=0) for track in tracks]).T
    )
    left = centred(np.array([np.mean(track.boxes[-_SIZE_OVER:], axis=0) for track in tracks]))
    came = centred(np.array([np.mean(track.boxes[:_SIZE_OVER], axis=0) for track in tracks]))
    speed = np.array([_speed(track, rate) for track in tracks])
    # People slow down or turn: half the way that the speed promises is the best guess of where they are.
    expected = left[:, None, :2] + speed[:, None] * np.clip(seconds, 0, bridge)[..., None] / 2
    height = left[:, None, 3]
    off = np.linalg.norm(expected - came[None, :, :2], axis=2) / height
    resized = np.maximum(height / came[None, :, 3], came[None, :, 3] / height)
    allowed = (seconds > 0) & (seconds <= bridge) & (likeness >= _ALIKE) & (resized <= _RESIZED)
    allowed &= off <= _OFF + _FASTEST / 2 * seconds
    return np.where(allowed, likeness + 1 / (1 + off), 0)


def _unit(rows: list[np.ndarray]) -> np.ndarray:
    array = np.array(rows)
    return array / np.maximum(np.linalg.norm(array, axis=1, keepdims=True), 1e-9)


def _speed(track: Track, rate: float) -> np.ndarray:
    """Pixels a second at the end of a track: the slope of a line through its last boxes."""
    frames = np.array(track.frames[-_SPEED_OVER:], float)
    centres = centred(np.array(track.boxes[-_SPEED_OVER:]))[:, :2]
    moments = frames - frames.mean()
    return rate * moments @ centres / (moments @ moments)


def _joined(tracks: list[Track], first: int, following: dict[int, int]) -> Track:
    whole = tracks[first]
    number = first
    while number in following:
        number = following[number]
        whole.frames += tracks[number].frames
        whole.boxes += tracks[number].boxes
        whole.scores += tracks[number].scores
    return whole


def rows_of(tracks: list[Track], looked_at: np.ndarray, rate: float) -> np.ndarray:
    """Rows of ROW, by frame; short gaps between the boxes of a track are filled in on straight lines.

    Args:
        tracks: They are numbered as they come.
        looked_at: The frames of the stretch that were looked at, in order.
        rate: Frames of the video a second.
    """
    parts = [np.empty(0, ROW)]
    for number, track in enumerate(tracks):
        found = np.array(track.frames)
        frames = looked_at[slice(*np.searchsorted(looked_at, [found[0], found[-1] + 1]))]
        after = np.searchsorted(found, frames)
        is_found = found[after] == frames
        frames = frames[is_found | (found[after] - found[np.maximum(after - 1, 0)] <= _FILLED * rate)]
        part = np.zeros(len(frames), ROW)
        part["frame"] = frames
        part["tracklet"] = number
        part["score"][np.searchsorted(frames, found)] = track.scores
        for side in range(4):
            part["box"][:, side] = np.interp(frames, found, [box[side] for box in track.boxes])
        parts.append(part)
    rows = np.concatenate(parts)
    return rows[np.lexsort((rows["tracklet"], rows["frame"]))]
