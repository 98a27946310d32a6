"""From features and tracklets to labels, with what was promised about them checked at the end."""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import NamedTuple

import numpy as np

from cion_jax.config import Denoising
from cion_jax.denoise.levels import Level, climb
from cion_jax.denoise.near import near
from cion_jax.denoise.notion import ROUNDING, Identities, Noise, distances, windows
from cion_jax.denoise.sightings import UNKNOWN, Sightings, sightings
from cion_jax.denoise.thresholds import Thresholds, estimate
from cion_jax.errors import UserError


class Denoised(NamedTuple):
    """What denoising found."""

    labels: np.ndarray
    """(N,) int64: who each image shows, from 0 without gaps, or -1 for nobody."""
    settings: Denoising
    """As they were used: with the sigma and tau that `auto` found."""
    noise: list[Noise]
    """Of the raw tracklets, and after each level."""
    refused: Counter[str]
    """Pairs nearer than tau that stay two after the last level: those who "met", and those who would be too "apart"."""

    def refusals(self) -> str:
        """How many pairs stay two, and why, in words."""
        words = {"met": "share a frame", "apart": "would be too far apart"}
        return ", ".join(f"{count:,} {words[why]}" for why, count in sorted(self.refused.items())) or "none"

    def told(self) -> dict[str, object]:
        """All but the labels, as JSON has it."""
        noise = [each._asdict() for each in self.noise]
        return asdict(self.settings) | {"noise": noise, "refused": dict(self.refused)}


def denoise(
    features: np.ndarray,
    video: np.ndarray,
    tracklet: np.ndarray,
    frame: np.ndarray | None = None,
    settings: Denoising = Denoising(),
    done: Callable[[int], object] = lambda steps: None,
) -> Denoised:
    """Who is who among images of tracklets.

    Every label's images are within sigma of their centroid, and none has images of two tracklets in one frame. After
    three levels every two centroids within the range are at least tau apart, but for the pairs counted in `refused`.
    All of it is checked before this returns. Neither the order of the images nor the number of devices makes a
    difference.

    Args:
        features: (N, D) floats of any length but 0.
        video: (N,) whole numbers.
        tracklet: (N,) whole numbers, none in two videos; images of tracklet -1 are left out.
        frame: (N,) whole numbers, counted in each video; -1 where not known.
        settings: What to do.
        done: Called with 1 after each of the levels, the raw tracklets being the first.
    """
    check_settings(settings)
    found = sightings(features, video, tracklet, frame)
    guess = estimate(found) if "auto" in (settings.sigma, settings.tau) else Thresholds(0, 0)
    sigma = guess.sigma if settings.sigma == "auto" else settings.sigma
    tau = guess.tau if settings.tau == "auto" else settings.tau
    within = None if settings.range == "all" else settings.range
    levels = []
    for level in climb(found, sigma, tau, within, settings.levels):
        levels.append(level)
        done(1)
    keep_promises(found, levels, sigma, tau, within)
    labels = np.full(found.given, -1, np.int64)
    labels[found.place] = _numbered(levels[-1].labels, settings.min_images)
    refused = Counter(levels[-1].refused.values())
    return Denoised(labels, replace(settings, sigma=sigma, tau=tau), [level.noise for level in levels], refused)


def check_settings(settings: Denoising) -> None:
    """Refuse what makes no sense, before anything is read or computed."""
    for name, value in (("sigma", settings.sigma), ("tau", settings.tau)):
        if value != "auto" and not 0 < value <= 2:
            raise UserError(f"{name} {value}: distances go from 0 to 2; give one above 0, or auto")
    if settings.range != "all" and settings.range < 2:
        raise UserError(f"range {settings.range}: at least 2 identities must be in it, or all")
    if settings.min_images < 1:
        raise UserError(f"min-images {settings.min_images}: must be at least 1")


def _numbered(labels: np.ndarray, least: int) -> np.ndarray:
    """Labels of at least so many images, from 0 without gaps, in the order they had; -1 for the others."""
    kept = np.bincount(labels[labels >= 0]) >= least
    return np.where((labels >= 0) & kept[labels], np.cumsum(kept)[labels] - 1, -1)


def keep_promises(sightings: Sightings, levels: list[Level], sigma: float, tau: float, within: int | None) -> None:
    """See that the last level has what was promised of it; what it has not is a mistake of this program."""
    found, refused = levels[-1].people, levels[-1].refused
    beyond = np.count_nonzero(found.apart > sigma + ROUNDING)
    twice = _twice(found.member, sightings.moment[found.images], sightings.tracklet[found.images])
    near_pairs = _near(sightings, found, len(levels) - 1, tau, within) - refused.keys()
    if beyond or twice or near_pairs:
        raise RuntimeError(
            f"denoising broke its promise, please report it: {beyond:,} images farther than sigma from their centroid, "
            f"{twice:,} tracklets of one in a frame, {len(near_pairs):,} pairs nearer than tau"
        )


def _twice(member: np.ndarray, moment: np.ndarray, tracklet: np.ndarray) -> int:
    """How often an identity has images of two tracklets in one moment."""
    order = np.lexsort((tracklet, moment, member))
    order = order[moment[order] != UNKNOWN]
    one, other = order[:-1], order[1:]
    same = (member[one] == member[other]) & (moment[one] == moment[other])
    return int(np.count_nonzero(same & (tracklet[one] != tracklet[other])))


def _near(sightings: Sightings, found: Identities, level: int, tau: float, within: int | None) -> set[tuple[int, int]]:
    """Pairs of identities nearer than tau, where that level promises that there are none."""
    if level < 2:
        return set()
    video = sightings.video[sightings.bounds[found.names]]
    ends = windows(len(video), within) if level > 2 else np.searchsorted(video, video, side="right")
    centers = found.centers
    pairs = near(centers, ends, tau)
    pairs = pairs[distances(centers[pairs[:, 0]], centers[pairs[:, 1]]) < tau - ROUNDING]
    return {(one, other) for one, other in found.names[pairs].tolist()}
