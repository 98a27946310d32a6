"""The demo's tables: what the queries of each contestant find, differences in pairs, and how right labels are."""

from collections.abc import Callable, Sequence
from statistics import mean, stdev

from scipy.stats import t

from cion_jax.demo.story import RUNS, Story
from cion_jax.evaluate.retrieval import Scores

AGREEMENT = ("precision", "recall", "F1", "NMI", "ARI")
SCORES: dict[str, Callable[[Scores], float]] = {
    "mAP": lambda scores: scores.mean_average_precision,
    "rank 1": lambda scores: scores.rank_1,
    "rank 5": lambda scores: scores.rank_5,
    "rank 10": lambda scores: scores.rank_10,
    "mINP": lambda scores: scores.mean_inverse_penalty,
}
#: Who is compared with whom, world by world: the first less the second.
PAIRS = ((RUNS["identity"], RUNS["tracklet"]), (RUNS["tracklet"], RUNS["instance"]))

Rows = list[tuple[str, ...]]


def score_rows(stories: Sequence[Story]) -> Rows:
    """Scores of each contestant in per cent, as means over the stories."""
    return [
        (name, *(spread(_percent(stories, name, value), 1) for value in SCORES.values())) for name in stories[0].found
    ]


def difference_rows(stories: Sequence[Story]) -> Rows:
    """How much better one contestant is than another in the same world, in points of per cent."""

    def points(one: str, other: str, value: Callable[[Scores], float]) -> list[float]:
        both = zip(_percent(stories, one, value), _percent(stories, other, value), strict=True)
        return [first - second for first, second in both]

    return [
        (f"{one} - {other}", *(difference(points(one, other, value)) for value in SCORES.values()))
        for one, other in PAIRS
    ]


def agreement_rows(stories: Sequence[Story]) -> Rows:
    """Of pairs of images, precision, recall and F1; NMI and ARI: of each labelling, as means over the stories."""
    return [
        (name, *(spread([story.who.agreements[name][column] for story in stories]) for column in range(5)))
        for name in stories[0].who.agreements
    ]


def about_differences(worlds: int) -> str:
    """What stands in brackets, or why nothing does."""
    if worlds == 1:
        return "Differences are those of one world, which have no interval; --seeds 3 draws three."
    return (
        f"In brackets: the 95 % interval of the mean over {worlds} worlds (Student's t, differences paired by world)."
    )


def spread(values: Sequence[float], digits: int = 3) -> str:
    """The mean, and with several values their standard deviation."""
    told = f"{mean(values):.{digits}f}"
    return f"{told} ± {stdev(values):.{digits}f}" if len(values) > 1 else told


def difference(values: Sequence[float]) -> str:
    """The mean with its sign, and with several values its 95 % interval."""
    told = f"{mean(values):+.1f}"
    return "{} [{:+.1f}, {:+.1f}]".format(told, *interval(values)) if len(values) > 1 else told


def interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Where the mean lies with so much confidence, after Student's t; two values or more."""
    half = t.ppf((1 + confidence) / 2, len(values) - 1) * stdev(values) / len(values) ** 0.5
    return float(mean(values) - half), float(mean(values) + half)


def markdown(title: str, columns: Sequence[str], rows: Rows) -> str:
    """A table in Markdown, with columns of even width."""
    lines = [(title, *columns), *rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns) + 1)]
    told = [" | ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines]
    rule = "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])])
    return "\n".join([f"| {told[0]} |", f"|{rule}|", *(f"| {line} |" for line in told[1:])])


def _percent(stories: Sequence[Story], contestant: str, value: Callable[[Scores], float]) -> list[float]:
    return [100 * value(story.scores(contestant)) for story in stories]
