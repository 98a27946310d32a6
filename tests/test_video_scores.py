"""Scores of tracking, against cases that are counted by hand."""

import numpy as np
import pytest

from experiments.benchmarks.video import TRACKED, clear_mot, faults, hota, idf1, overlaps_of


def walk(person: int, frames: range, left: float = 0.0) -> np.ndarray:
    """Somebody who stands at a place."""
    rows = np.empty(len(frames), TRACKED)
    rows["frame"], rows["person"] = frames, person
    rows["box"] = [left, 0, left + 10, 20]
    return rows


TRUTH = np.concatenate([walk(1, range(1, 11)), walk(2, range(1, 11), 100)])


def test_the_truth_itself_is_perfect() -> None:
    overlaps = overlaps_of(TRUTH, TRUTH)
    assert idf1(overlaps) == 1 and hota(overlaps) == pytest.approx(1)
    wanted = {"recall": 1, "precision": 1, "MOTA": 1, "switches": 0, "fragments": 0}
    assert clear_mot(overlaps) == wanted


def test_a_switch_halves_what_is_held_together() -> None:
    """One person in two tracklets of five frames: all boxes are found, half of each person's are together."""
    found = np.concatenate([walk(7, range(1, 6)), walk(8, range(6, 11))])
    overlaps = overlaps_of(TRUTH[:10], found)
    assert idf1(overlaps) == 0.5 and hota(overlaps) == pytest.approx(0.5**0.5)
    assert clear_mot(overlaps) == {"recall": 1, "precision": 1, "MOTA": 0.9, "switches": 1, "fragments": 0}


def test_gaps_and_boxes_of_nobody() -> None:
    """Person 2 is missed, person 1 in two frames of ten, and four boxes show nobody."""
    found = np.concatenate([walk(7, range(1, 5)), walk(7, range(7, 11)), walk(9, range(1, 5), 300)])
    overlaps = overlaps_of(TRUTH, found)
    assert idf1(overlaps) == 2 * 8 / (20 + 12)
    wanted = {"recall": 8 / 20, "precision": 8 / 12, "MOTA": 1 - (12 + 4) / 20, "switches": 0, "fragments": 1}
    assert clear_mot(overlaps) == pytest.approx(wanted)
    assert hota(overlaps) == pytest.approx((8 / (20 + 12 - 8) * 8 / 10) ** 0.5)


def test_boxes_that_overlap_by_less_than_half_do_not_count_except_for_hota() -> None:
    overlaps = overlaps_of(TRUTH[:10], walk(7, range(1, 11), 5))  # IoU of a third
    assert idf1(overlaps) == 0 and clear_mot(overlaps)["recall"] == 0
    assert hota(overlaps) == pytest.approx(6 / 19)  # thresholds of 0.05 to 0.30, of nineteen


def test_faults_are_counted_as_the_drawn_world_has_them() -> None:
    """Tracklets 0 and 1 are one person, broken; 2 jumps for good, 3 for a moment; 4 shows nobody."""
    tracklet = np.repeat(np.arange(5), 20)
    shown = np.repeat([7, 7, 1, 2, -1], 20)
    shown[50:60] = 2
    shown[70] = 1
    assert faults(tracklet, shown) == (1 / 4, 1 / 3, 1 / 5)
