"""The demo's two tables: how well labels agree with the truth, level by level, and what the queries of each find."""

from collections.abc import Callable, Sequence
from statistics import mean, stdev

from cion_jax.demo.story import Story
from cion_jax.evaluate.retrieval import Scores, scores

STEPS = ("raw tracklets", "level 1: in a tracklet", "level 2: in a video", "level 3: across videos")
AGREEMENT = ("precision", "recall", "F1", "NMI", "ARI")
SCORES: dict[str, Callable[[Scores], float]] = {
    "mAP": lambda found: found.mean_average_precision,
    "rank 1": lambda found: found.rank_1,
    "rank 5": lambda found: found.rank_5,
    "rank 10": lambda found: found.rank_10,
    "mINP": lambda found: found.mean_inverse_penalty,
}

Rows = list[tuple[str, ...]]


def agreement_rows(stories: Sequence[Story]) -> Rows:
    """Of pairs of images, precision, recall and F1; NMI and ARI: after each level, as means over the stories."""
    return [
        (step, *(spread([story.people.agreements[number][column] for story in stories]) for column in range(5)))
        for number, step in enumerate(STEPS)
    ]


def score_rows(stories: Sequence[Story]) -> Rows:
    """Scores of each contestant in per cent, as means over the stories."""
    found = [{name: scores(each) for name, each in story.found.items()} for story in stories]
    return [
        (name, *(spread([100 * value(each[name]) for each in found], 1) for value in SCORES.values()))
        for name in found[0]
    ]


def spread(values: Sequence[float], digits: int = 3) -> str:
    """The mean, and with several values their standard deviation."""
    told = f"{mean(values):.{digits}f}"
    return f"{told} ± {stdev(values):.{digits}f}" if len(values) > 1 else told


def markdown(title: str, columns: Sequence[str], rows: Rows) -> str:
    """A table in Markdown, with columns of even width."""
    lines = [(title, *columns), *rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns) + 1)]
    told = [" | ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines]
    rule = "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])])
    return "\n".join([f"| {told[0]} |", f"|{rule}|", *(f"| {line} |" for line in told[1:])])
