"""How tau was chosen, what other values of tau would do, and histograms of distances with sigma and tau marked."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cion_jax.denoise.clusters import Clusters
from cion_jax.denoise.denoise import Denoised
from cion_jax.denoise.inputs import UNKNOWN
from cion_jax.denoise.noise import members
from cion_jax.denoise.sweep import LARGEST, UP_TO_TAU, VALUES, Step, share_frame, sweep
from cion_jax.denoise.thresholds import Evidence
from cion_jax.denoise.vectors import distances
from cion_jax.report.drawing import BLUE, PALE, RED
from cion_jax.report.page import beside, paragraph, picture, table

#: The most pairs of tracklets whose distances are drawn.
PAIRS = 1 << 16
#: The steps of the sweep that are in the table.
_ROWS = (4, 8, 12, 14, UP_TO_TAU, 18, 20, 22, VALUES)


def choice_of_tau(denoised: Denoised) -> Iterator[str]:
    """The links that the data show, how many of them are by chance, and what other values of tau would do."""
    tau = float(denoised.settings.tau)
    evidence = denoised.evidence
    steps = sweep(denoised.clusters, tau, evidence)
    yield paragraph(_why(denoised))
    pictures = []
    if evidence is not None:
        pictures.append(
            picture(
                _links(evidence, tau),
                f"Two curves over distance: pairs of tracklets that are nearer, and those by chance; {_at(tau)}",
                "Pairs of tracklets that may be one person and are nearer than each distance, and how many would be if "
                "all were strangers.",
            )
        )
    if steps:
        pictures.append(
            picture(
                _swept(steps, tau),
                f"Three curves over tau: identities, merged pairs of tracklets, and stability; {_at(tau)}",
                "What other values of tau would make of the tracklets, if all are compared at once.",
            )
        )
    if pictures:
        yield beside(*pictures)
    yield from _table_of(steps, denoised)


def _at(tau: float) -> str:
    return f"tau {tau:.4g} is marked" if tau else "tau is 0"


def _why(denoised: Denoised) -> str:
    """How tau was chosen, in plain words."""
    tau = float(denoised.settings.tau)
    evidence = denoised.evidence
    if not tau:
        return f"tau is 0: no tracklet was linked to another. {_why_nothing(evidence)}"
    text = ""
    if denoised.settings.levels == 1:
        text += "Only level 1 was run, which links nobody. "
    if evidence is None:
        return f"{text}tau was given: links by chance were not counted, and nobody knows how many there are below it."
    if tau > evidence.steps[-1]:
        return f"{text}tau was given, and lies beyond the distances at which links by chance are estimated."
    links = np.interp(tau, evidence.steps, evidence.near)
    chance = np.interp(tau, evidence.steps, evidence.by_chance)
    text += f"{links:,.0f} pairs of tracklets are nearer than tau, and may be one person. "
    text += f"About {chance:,.0f} of them are expected to be that near by chance."
    if tau != evidence.tau:
        return f"{text} tau was given, not found."
    return (
        f"{text} {evidence.links:,.0f} links are trusted, up to the largest distance at which no more than one in "
        "twenty is by chance; tau is where nine in ten of these are found."
    )


def _why_nothing(evidence: Evidence | None) -> str:
    if evidence is None:
        return (
            "Either it was given so, or too few pairs of tracklets share a frame or a video to tell how near two "
            "people come."
        )
    if evidence.tau:
        return f"It was given so; the data would have suggested {evidence.tau:.4g}."
    return "At no distance are there enough links of which nineteen in twenty are right, so far as these features tell."


def _links(evidence: Evidence, tau: float) -> Figure:
    figure, (axes,) = _figure(1)
    near = evidence.near > 0
    axes.plot(evidence.steps[near], evidence.near[near], color=BLUE, label="nearer than this")
    axes.plot(evidence.steps, evidence.by_chance, "--", color=RED, label="of them by chance")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_ylim(bottom=0.5)
    axes.set_ylabel("pairs of tracklets")
    axes.set_xlabel("distance, 1 - cosine")
    return _finished(figure, "tau", tau)


def _swept(steps: list[Step], tau: float) -> Figure:
    figure, panels = _figure(3)
    values = [step.tau for step in steps]
    labels = {"identities": "identities", "merged": "merged pairs", "stability": "stability"}
    for axes, (name, label) in zip(panels, labels.items(), strict=True):
        axes.plot(values, [getattr(step, name) for step in steps], ".-", color=BLUE)
        axes.set_ylim(bottom=0)
        axes.set_ylabel(label)
    panels[-1].set_xlabel("tau")
    return _finished(figure, "tau", tau)


def _table_of(steps: list[Step], denoised: Denoised) -> Iterator[str]:
    """Some steps of the sweep in a table, or why there are none."""
    tau = float(denoised.settings.tau)
    count = len(denoised.clusters.members.names)
    if not steps:
        if count > LARGEST:
            yield paragraph(f"Other values of tau were not tried: {count:,} tracklets are more than {LARGEST:,}.")
        elif tau or denoised.evidence is not None:
            yield paragraph("Other values of tau were not tried: too many pairs of tracklets are near.")
        return
    if len(steps) <= VALUES:
        yield paragraph(f"Above {steps[-1].tau:.4g} too many pairs of tracklets are near to try more values of tau.")
    names = ("tau", "identities", "merged pairs", "links forbidden by a frame", "stability")
    rows = []
    for step in (steps[number] for number in _ROWS if number < len(steps)):
        chosen = ", chosen" if step.tau == tau else ""
        rows.append((f"{step.tau:#.4g}{chosen}", step.identities, step.merged, step.forbidden, f"{step.stability:.2f}"))
    yield table(names, rows)
    yield paragraph(
        "Merged pairs: pairs of tracklets of one identity. Links forbidden by a frame: pairs of tracklets nearer than "
        "tau that one frame shows both of, so that they are two people. Stability: the share of the merged pairs that "
        "the next smaller tau of the chart has too; where it is near 1, tau matters little."
    )


def distances_seen(denoised: Denoised) -> Iterator[str]:
    """Histograms of the distances of images from their tracklets, and between tracklets; sigma and tau are marked."""
    pictures = [
        picture(
            _inside(denoised),
            "Histograms of the distances of images from the centroid of their tracklet, before and after; sigma is "
            "marked",
            "Of an image from the centroid of its tracklet: all images, and those that were kept.",
        )
    ]
    tau = float(denoised.settings.tau)
    drawn = _between(denoised.clusters)
    if drawn:
        pictures.append(
            picture(
                _histogram_of_pairs(drawn, tau),
                f"Histogram of the distances between tracklets: {' and '.join(drawn)}; {_at(tau)}",
                "Between two tracklets, as they are compared. Two that share a frame are two people, unless a tracker "
                "has changed over from one to the other.",
            )
        )
    yield beside(*pictures)
    if not drawn:
        yield paragraph("There is only one tracklet, and so no distance between two.")


def _inside(denoised: Denoised) -> Figure:
    clusters = denoised.clusters
    sigma = float(denoised.settings.sigma)
    before = members(clusters.tracklets.features, clusters.tracklets.tracklet).distance
    after = clusters.distance[clusters.home >= 0]
    figure, (axes,) = _figure(1)
    bins = np.linspace(0, max(before.max(), sigma) * 1.02 + 1e-6, 81).tolist()
    axes.hist(before, bins, color=PALE, label="before")
    axes.hist(after, bins, histtype="step", color=BLUE, label="after")
    axes.set_ylabel("images")
    axes.set_xlabel("distance, 1 - cosine")
    return _finished(figure, "sigma", sigma)


def _between(clusters: Clusters) -> dict[str, np.ndarray]:
    """Distances of some pairs of tracklets: of those that share a frame, and of the others."""
    random = np.random.default_rng(0)
    pairs = random.integers(len(clusters.members.names), size=(PAIRS, 2))
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    kinds = {"others": pairs[~share_frame(clusters, pairs)], "sharing a frame": _of_one_frame(clusters, random)}
    vectors = clusters.vectors
    return {name: distances(vectors[kind[:, 0]], vectors[kind[:, 1]]) for name, kind in kinds.items() if len(kind)}


def _of_one_frame(clusters: Clusters, random: np.random.Generator) -> np.ndarray:
    """Some pairs of tracklets that share a frame, (pairs, 2)."""
    kept = clusters.members
    frame_key = clusters.tracklets.frame_key[kept.images]
    images = np.flatnonzero(frame_key != UNKNOWN)
    images = images[np.argsort(frame_key[images], kind="stable")]
    # The images of a frame are neighbours now: each of some images is paired with any one of its frame.
    key = frame_key[images]
    first = np.searchsorted(key, key)
    end = np.searchsorted(key, key, side="right")
    one = random.permutation(len(images))[:PAIRS]
    other = random.integers(first[one], end[one])
    pairs = kept.row[np.stack([images[one], images[other]], axis=1)]
    return np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0)


def _histogram_of_pairs(drawn: dict[str, np.ndarray], tau: float) -> Figure:
    figure, (axes,) = _figure(1)
    bins = np.linspace(0, max([tau, *(values.max() for values in drawn.values())]) * 1.02 + 1e-6, 81)
    looks: dict[str, dict[str, Any]] = {"others": {"color": PALE, "fill": True}, "sharing a frame": {"color": RED}}
    for name, values in drawn.items():
        axes.stairs(np.histogram(values, bins)[0] / len(values), bins, label=name, **looks[name])
    axes.set_ylabel("share of the pairs")
    axes.set_xlabel("distance, 1 - cosine")
    return _finished(figure, "tau", tau)


def _figure(panels: int) -> tuple[Figure, list[Axes]]:
    figure = Figure((4.4, 4), layout="constrained")
    axes = figure.subplots(panels, sharex=True, squeeze=False)[:, 0].tolist()
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.locator_params(axis="x", nbins=6)
    return figure, axes


def _finished(figure: Figure, name: str, value: float) -> Figure:
    """The figure with a threshold marked in each panel, unless it is 0, and with a legend."""
    for axes in figure.axes:
        if value:
            axes.axvline(value, color="black", linestyle=":", label=f"{name} = {value:.3g}")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper left", ncols=2, frameon=False)
    return figure
