"""From features and tracklets to labels, with their promises checked at the end."""

from dataclasses import asdict, replace
from functools import partial
from typing import NamedTuple

import numpy as np

from cion_jax.config import Denoising
from cion_jax.denoise.clusters import Clusters
from cion_jax.denoise.inputs import UNKNOWN, TrackedFeatures, Tracklets, arrange, frame_warnings
from cion_jax.denoise.levels import Level, run_levels
from cion_jax.denoise.noise import Members, Noise, members, noise
from cion_jax.denoise.prepare import Space, in_space, spaces, without_video_means
from cion_jax.denoise.single import consistent
from cion_jax.denoise.thresholds import FARTHEST, LEAST, Evidence, estimate_sigma, estimate_tau
from cion_jax.denoise.vectors import ROUNDING, distances
from cion_jax.errors import UserError
from cion_jax.terminal import Progress, no_progress

#: The spaces that `auto` chooses from.
_CHOICE = ("total", "within")
#: The one that is taken where the data do not tell.
_USUAL = "total"


class Denoised(NamedTuple):
    """Labels, and how they came about."""

    labels: np.ndarray
    """(N,) int64: who each image shows, from 0 without gaps, or -1 for nobody."""
    settings: Denoising
    """As they were used: with sigma, tau and the space that `auto` found; tau 0 where the data carry no link, and cut
    where it was given beyond the limit."""
    noise: list[Noise]
    """Of the raw tracklets, and after each level."""
    cannot_link: int
    """Pairs of identities less than tau apart that stay two after the last level, since a frame shows both."""
    warnings: tuple[str, ...]
    """What a user should know before the labels are used."""
    evidence: Evidence | None
    """What the data show of tau; None where there are too few strangers to tell."""
    clusters: Clusters
    """The last level's, for reports."""

    def as_dict(self) -> dict[str, object]:
        """Settings, noise and warnings, as JSON has them."""
        counts = [each._asdict() for each in self.noise]
        return asdict(self.settings) | {
            "noise": counts,
            "cannot_link": self.cannot_link,
            "warnings": list(self.warnings),
        }


def denoise(
    features: np.ndarray,
    video: np.ndarray,
    tracklet: np.ndarray,
    frame: np.ndarray | None = None,
    settings: Denoising = Denoising(),
    progress: Progress = no_progress,
) -> Denoised:
    """Who is who among images of tracklets.

    Promised, and checked before this returns, are of the features as prepared: every image with a label is within sigma
    of the centroid of a tracklet of its identity; no identity has images of two tracklets in one frame; and after three
    levels any two identities within the range are at least tau apart, on average over their tracklets, unless a frame
    shows both. Neither the order of the images nor the number of devices makes a difference.

    Args:
        features: (N, D) floats of any length but 0.
        video: (N,) whole numbers.
        tracklet: (N,) whole numbers, none in two videos; images of tracklet -1 are left out.
        frame: (N,) whole numbers, counted in each video; -1 where not known.
        settings: What to do.
        progress: Called with 1 after each of the levels, the raw tracklets being the first.
    """
    check_settings(settings)
    tracked = TrackedFeatures(features, video, tracklet, frame)
    tracklets = prepared(tracked, settings)

    raw = members(tracklets.features, tracklets.tracklet)
    sigma = estimate_sigma(raw) if settings.sigma == "auto" else settings.sigma
    cleaned = consistent(tracklets.features, tracklets.tracklet, sigma)
    space, evidence = _space_of(tracklets, cleaned, settings)
    tau = _tau_of(settings, evidence)
    within = None if settings.range == "all" else settings.range

    vectors = partial(in_space, space)
    levels: list[Level] = []
    for level in run_levels(tracklets, raw, cleaned, vectors, sigma, tau, within, settings.levels):
        levels.append(level)
        progress(1)
    last = levels[-1]
    clusters = last.clusters
    check_invariants(clusters, sigma, tau, within, settings.levels)

    labels = np.full(tracklets.given, -1, np.int64)
    labels[tracklets.place] = _numbered(last.labels, settings.min_images)
    cannot_link = sum(clusters.cannot_link(*pair) for pair in clusters.rows(last.close).tolist())
    used = replace(settings, sigma=sigma, tau=tau, whiten=space.name)  # type: ignore[arg-type]
    warnings = frame_warnings(tracked) if settings.frames else ()
    warnings += _warnings(settings, used, evidence, levels)
    return Denoised(labels, used, [level.noise for level in levels], cannot_link, warnings, evidence, clusters)


def prepared(tracked: TrackedFeatures, settings: Denoising) -> Tracklets:
    """Images in order, their features as denoising compares them."""
    tracklets = arrange(tracked, settings.frames)
    return tracklets._replace(features=without_video_means(tracklets)) if settings.video_mean else tracklets


def check_settings(settings: Denoising) -> None:
    """Refuse what makes no sense, before anything is read or computed."""
    if settings.sigma != "auto" and not 0 < settings.sigma <= FARTHEST:
        raise UserError(f"sigma {settings.sigma}: distances go from 0 to 2; give one above 0, or auto")
    if settings.tau != "auto" and not 0 <= settings.tau <= FARTHEST:
        raise UserError(f"tau {settings.tau}: distances go from 0 to 2; give one of them, 0 to link nobody, or auto")
    if settings.range != "all" and settings.range < 2:
        raise UserError(f"range {settings.range}: at least 2 identities must be in it, or all")
    if settings.min_images < 1:
        raise UserError(f"min-images {settings.min_images}: must be at least 1")


def _space_of(tracklets: Tracklets, cleaned: Members, settings: Denoising) -> tuple[Space, Evidence | None]:
    """The space in which tracklets are compared, and what it shows of tau."""
    names = _CHOICE if settings.whiten == "auto" else (settings.whiten,)
    made = list(spaces(tracklets.features, cleaned, names))
    evidence = estimate_tau(tracklets, cleaned, made)
    if evidence is None:
        return next(space for space in made if space.name in (settings.whiten, _USUAL)), None
    return evidence.space, evidence


def _tau_of(settings: Denoising, evidence: Evidence | None) -> float:
    """tau as it is found; or as it is given, so far as links are more likely right than wrong."""
    if settings.tau == "auto":
        return evidence.tau if evidence else 0.0
    return settings.tau if evidence is None or settings.trust_tau else min(settings.tau, evidence.limit)


def _numbered(labels: np.ndarray, least: int) -> np.ndarray:
    """Labels of at least so many images, from 0 without gaps, in the order they had; -1 for the others."""
    kept = np.bincount(labels[labels >= 0]) >= least
    return np.where((labels >= 0) & kept[labels], np.cumsum(kept)[labels] - 1, -1)


def _warnings(asked: Denoising, used: Denoising, evidence: Evidence | None, levels: list[Level]) -> tuple[str, ...]:
    """What to know of these thresholds and levels, a line each."""
    lines = []
    if asked.sigma == "auto" and used.sigma == LEAST:
        lines.append("sigma came out at its floor: images of a tracklet hardly differ; give --sigma")
    if asked.tau == "auto" and used.levels > 1 and evidence is None:
        lines.append(
            "tracklets are cleaned, not linked: too few pairs of tracklets share a frame or a video to tell how near "
            "two people come; give --tau to link all the same"
        )
    elif asked.tau == "auto" and used.levels > 1 and not used.tau:
        lines.append(
            "tracklets are cleaned, not linked: so far as these features tell, at no distance would enough links be "
            "right nineteen times in twenty; use better features (train longer, --match-colours, --flip), or give "
            "--tau with --trust-tau"
        )
    elif asked.tau not in ("auto", used.tau) and used.levels > 1:
        lines.append(
            f"tau {asked.tau:.4g} is cut to {used.tau:.4g}: so far as these features tell, what would be linked beyond "
            "is more likely two people than one; give --trust-tau to link it all the same"
        )
    if used.tau and asked.tau in ("auto", used.tau):  # where it was cut, a larger one is no remedy
        for number in range(2, used.levels + 1):
            if levels[number].noise.identities == levels[number - 1].noise.identities:
                where = "within a video" if number == 2 else "across videos"
                lines.append(
                    f"level {number} linked nobody {where}: no two that may be linked are nearer than tau "
                    f"{used.tau:.4g}; if some should be, give a larger --tau"
                )
    return tuple(lines)


def check_invariants(clusters: Clusters, sigma: float, tau: float, within: int | None, levels: int = 3) -> None:
    """Check the promises of `denoise`; a broken one is a mistake of this program."""
    tracklets = clusters.tracklets
    images = np.flatnonzero(clusters.home >= 0)
    centroids_TxD = clusters.members.centroids
    far = np.zeros(len(images))
    for some in np.array_split(np.arange(len(images)), len(images) * tracklets.features.shape[1] // (1 << 22) + 1):
        far[some] = distances(tracklets.features[images[some]], centroids_TxD[clusters.home[images[some]]])
    beyond = int(np.count_nonzero(far > sigma + ROUNDING))
    label = clusters.cluster[clusters.home[images]]
    twice = _twice(label, tracklets.frame_key[images], tracklets.tracklet[images])
    close = 0
    if levels > 2:
        _, pairs = noise(far, clusters.means, sigma, tau, within)
        close = sum(not clusters.cannot_link(*pair) for pair in clusters.numbers[pairs].tolist())
    if beyond or twice or close:
        raise RuntimeError(
            f"denoising broke its promise, please report it: {beyond:,} images farther than sigma from each tracklet "
            f"of their identity, {twice:,} identities twice in a frame, {close:,} pairs nearer than tau"
        )


def _twice(label: np.ndarray, frame_key: np.ndarray, tracklet: np.ndarray) -> int:
    """How often an identity has images of two tracklets in one frame."""
    order = np.lexsort((tracklet, frame_key, label))
    order = order[frame_key[order] != UNKNOWN]
    one, other = order[:-1], order[1:]
    same = (label[one] == label[other]) & (frame_key[one] == frame_key[other])
    return int(np.count_nonzero(same & (tracklet[one] != tracklet[other])))
