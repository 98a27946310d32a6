"""The curves of a run: the rows of its journal, and the noise before and after each relabelling.

A run of a million steps is drawn as fast as one of a thousand: of each stretch of steps only the lowest and the highest
value are drawn, and a screen could not show more.
"""

import math
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cion_jax.report.drawing import BLUE, PALE, RED
from cion_jax.report.page import beside, paragraph, picture

#: The most points of a curve that are drawn.
POINTS = 1000
#: The smooth line is the mean over this share of the steps.
SMOOTH = 0.02

#: The values of a journal that are drawn, each with its label and a note on what it is.
_CURVES = {
    "loss": ("loss", ""),
    "cross_entropy": ("cross entropy", ""),
    "triplet": ("triplet loss", ""),
    "entropy": ("entropy, nats", "Of the teacher's distributions over prototypes; near 0 all images are on one."),
    "feature_std": ("spread of features", "Of the teacher's features: 1 when spread, 0 when all are equal."),
    "learning_rate": ("learning rate", "As scheduled, for the whole batch."),
    "images_per_second": ("images/s", "Over all devices, as a mean of the last steps."),
}
#: Losses of many heads begin with these; their sum is drawn, under another name.
_SUMS = {"cls_": "cross_entropy", "triplet_": "triplet"}
_SCORES = {"mAP": ("mAP", "o-", BLUE), "rank_1": ("rank 1", "s--", RED)}
#: Who is ranked: a score's name in the journal begins with the key.
_RANKED = {"": "Scores on the way", "validation_": "Scores of those who were set aside"}


class Curves(NamedTuple):
    """The journal of a run in columns."""

    steps: int
    """Steps that are in the journal."""
    epoch: float
    """The epoch of the last step, with a fraction."""
    values: dict[str, np.ndarray]
    """By name, (2, N): epochs and values of the steps whose value is finite."""
    parts: dict[str, np.ndarray]
    """The same for the losses of single heads, whose sums are among the values."""
    warnings: list[tuple[int, str]]
    """Steps at which the journal has a warning, and its text."""


def read_curves(rows: Iterable[Mapping[str, Any]]) -> Curves:
    """Turn the rows of a journal into columns; rows are read one by one and not kept."""
    scores = [f"{who}{name}" for who in _RANKED for name in _SCORES]
    columns: dict[str, tuple[array, array]] = {name: (array("d"), array("d")) for name in (*_CURVES, *scores)}
    parts: dict[str, tuple[array, array]] = {}
    warnings = []
    steps = 0
    epoch = 0.0
    for row in rows:
        steps += 1
        epoch = row.get("epoch", epoch)
        if "warning" in row:
            warnings.append((row["step"], row["warning"]))
        single = {name: value for name, value in row.items() if name.startswith(tuple(_SUMS))}
        for name in single:
            parts.setdefault(name, (array("d"), array("d")))
        known = {**row, **_sums(single)} if single else row
        for name, (epochs, values) in (*columns.items(), *parts.items()):
            if math.isfinite(value := known.get(name, math.nan)):
                epochs.append(epoch)
                values.append(value)
    return Curves(steps, epoch, _filled(columns), _filled(parts), warnings)


def _sums(single: Mapping[str, float]) -> dict[str, float]:
    sums = {name: [single[part] for part in single if part.startswith(begin)] for begin, name in _SUMS.items()}
    return {name: sum(values) for name, values in sums.items() if values}


def _filled(columns: Mapping[str, tuple[array, array]]) -> dict[str, np.ndarray]:
    return {name: np.array(pair) for name, pair in columns.items() if pair[0]}


def training(curves: Curves, about: Mapping[str, str], marks: Sequence[int] = ()) -> Iterator[str]:
    """The curves of training, with notes on some by name; `marks` are the epochs at which labels were made anew."""
    window = max(1, round(SMOOTH * curves.steps))
    mean = f"Dark lines are means over {window:,} steps, pale ones" if window > 1 else "Lines are"
    marked = " Dotted: labels were made anew." if marks else ""
    yield paragraph(f"{mean} single steps.{marked}")
    yield beside(
        *(
            picture(
                _curve(curves.values[name], label, window, marks),
                f"Curve of {label} over {curves.epoch:.3g} epochs, from {_ends(curves.values[name][1])}",
                about.get(name, note),
            )
            for name, (label, note) in _CURVES.items()
            if name in curves.values
        )
    )
    for step, text in curves.warnings:
        yield paragraph(f"Warning at step {step:,}: {text}")


def evaluations(curves: Curves) -> Iterator[str]:
    """Scores by epoch, if the run was evaluated on its way."""
    drawn = [
        _scores(curves, who, title) for who, title in _RANKED.items() if any(who + s in curves.values for s in _SCORES)
    ]
    if drawn:
        yield beside(*drawn)


def _scores(curves: Curves, who: str, title: str) -> str:
    scores = {name: curves.values[who + name] for name in _SCORES if who + name in curves.values}
    figure, axes = _small("score")
    for name, (epochs, values) in scores.items():
        label, line, colour = _SCORES[name]
        axes.plot(epochs, values, line, color=colour, label=label)
    axes.set_ylim(0, 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    last = ", ".join(f"{_SCORES[name][0]} {values[-1]:.3f}" for name, (_, values) in scores.items())
    return picture(figure, f"Curves by epoch: {title}; the last are {last}", f"{title}; at last {last}.")


def by_epoch(counts: Mapping[int, int], label: str, note: str) -> str:
    """A picture of a number for each epoch."""
    figure, axes = _small(label)
    axes.plot([*counts], [*counts.values()], "o-", color=BLUE, markersize=4)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return picture(figure, f"Curve of {label} by epoch, from {_ends(np.array([*counts.values()]))}", note)


def relabellings(noise: Mapping[int, np.ndarray]) -> Iterator[str]:
    """The noise before and after each relabelling, by its epoch; the rows of an array are `Noise`, level by level."""
    if not noise:
        return
    kinds = {2: "images beyond sigma", 3: "pairs nearer than tau"}
    yield beside(
        *(
            picture(
                _before_and_after(noise, column, label),
                f"Curves by epoch: {label} among raw tracklets and among the identities found",
            )
            for column, label in kinds.items()
        )
    )
    yield paragraph("Sigma and tau are those of each relabelling: the teacher's distances change while it learns.")


def decimated(x: np.ndarray, y: np.ndarray, most: int = POINTS) -> tuple[np.ndarray, np.ndarray]:
    """At most `most` points of a curve, in order: the first, the last, and the extremes of stretches between them."""
    if len(x) <= most:
        return x, y
    stretches = np.array_split(np.arange(len(x)), (most - 2) // 2)
    extremes = [points[place] for points in stretches for place in (y[points].argmin(), y[points].argmax())]
    kept = np.unique([0, *extremes, len(x) - 1])
    return x[kept], y[kept]


def smoothed(values: np.ndarray, window: int) -> np.ndarray:
    """Means over a window of neighbours around each value; at the ends the window is cut off."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    place = np.arange(len(values))
    first = np.maximum(place - window // 2, 0)
    stop = np.minimum(place + window // 2 + 1, len(values))
    return (sums[stop] - sums[first]) / (stop - first)


def _curve(curve: np.ndarray, label: str, window: int, marks: Sequence[int]) -> Figure:
    figure, axes = _small(label)
    epochs, values = curve
    axes.plot(*decimated(epochs, values), color=PALE if window > 1 else BLUE, linewidth=1)
    if window > 1:
        axes.plot(*decimated(epochs, smoothed(values, window)), color=BLUE)
    if values.min() >= 0:
        axes.set_ylim(bottom=0)
    for mark in marks:
        axes.axvline(mark, color="black", linestyle=":", linewidth=1)
    return figure


def _before_and_after(noise: Mapping[int, np.ndarray], column: int, label: str) -> Figure:
    figure, axes = _small(label)
    axes.plot([*noise], [rows[0, column] for rows in noise.values()], "s--", color=RED, label="raw tracklets")
    axes.plot([*noise], [rows[-1, column] for rows in noise.values()], "o-", color=BLUE, label="after denoising")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure


def _small(label: str) -> tuple[Figure, Any]:
    figure = Figure((4.4, 2.6), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel="epoch", ylabel=label)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _ends(values: np.ndarray) -> str:
    return f"{values[0]:.3g} to {values[-1]:.3g}"
