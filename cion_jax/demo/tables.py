"""The demo's tables: scores of each contestant, differences between two of them, and how right labels are."""

from collections.abc import Callable, Sequence
from statistics import mean, stdev

from scipy.stats import t

from cion_jax.demo.plan import Plan
from cion_jax.demo.run_world import RANDOM, RUNS, STARTS, WorldResults
from cion_jax.evaluate.retrieval import Scores

AGREEMENT = ("precision", "recall", "F1", "NMI", "ARI")
SCORES: dict[str, Callable[[Scores], float]] = {
    "mAP": lambda scores: scores.mean_average_precision,
    "rank 1": lambda scores: scores.rank_1,
    "rank 5": lambda scores: scores.rank_5,
    "rank 10": lambda scores: scores.rank_10,
    "mINP": lambda scores: scores.mean_inverse_penalty,
}
FINETUNED = ("mAP before", "mAP after", "more than random weights, points")
#: Pairs of contestants whose difference is shown, world by world: the first minus the second.
PAIRS = ((RUNS["identity"], RUNS["tracklet"]), (RUNS["tracklet"], RUNS["instance"]))

Rows = list[tuple[str, ...]]


def score_rows(worlds: Sequence[WorldResults]) -> Rows:
    """Scores of each contestant in per cent, as means over the worlds."""
    return [
        (name, *(spread(_percent(worlds, name, value), 1) for value in SCORES.values())) for name in worlds[0].results
    ]


def difference_rows(worlds: Sequence[WorldResults]) -> Rows:
    """How much better one contestant is than another in the same world, in percentage points."""

    def points(one: str, other: str, value: Callable[[Scores], float]) -> list[float]:
        both = zip(_percent(worlds, one, value), _percent(worlds, other, value), strict=True)
        return [first - second for first, second in both]

    return [
        (f"{one} - {other}", *(difference(points(one, other, value)) for value in SCORES.values()))
        for one, other in PAIRS
    ]


def finetuned_rows(worlds: Sequence[WorldResults]) -> Rows:
    """`FINETUNED` of each start of a fine-tuning: mAP in per cent, and in points what it is worth after it."""
    after = {name: [100 * world.finetuned[name].mean_average_precision for world in worlds] for name in STARTS}
    gained = {
        name: difference([one - other for one, other in zip(after[name], after[RANDOM], strict=True)])
        for name in STARTS
        if name != RANDOM
    }
    return [
        (name, spread(_percent(worlds, name, SCORES["mAP"]), 1), spread(after[name], 1), gained.get(name, ""))
        for name in STARTS
    ]


def agreement_rows(worlds: Sequence[WorldResults]) -> Rows:
    """The `AGREEMENT` of each labelling with the truth, as means over the worlds."""
    return [
        (name, *(spread([world.labels.agreements[name][column] for world in worlds]) for column in range(5)))
        for name in worlds[0].labels.agreements
    ]


def about_differences(worlds: int) -> str:
    """A line that explains the brackets of `difference_rows`, or why there are none."""
    if worlds == 1:
        return "Differences are those of one world, which have no interval; --seeds 3 draws three."
    return (
        f"In brackets: the 95 % interval of the mean over {worlds} worlds (Student's t, differences paired by world)."
    )


def about_finetuned(plan: Plan) -> str:
    """A line that explains `finetuned_rows`."""
    settings = plan.finetuning
    return (
        "Does pre-training help the task? Each network was fine-tuned with the true labels of the same "
        f"{settings.identities_share:.0%} of the people in training, for as many steps (`cion finetune bnneck`), and "
        "then sought the people held out."
    )


def spread(values: Sequence[float], digits: int = 3) -> str:
    """The mean, and with several values their standard deviation."""
    text = f"{mean(values):.{digits}f}"
    return f"{text} ± {stdev(values):.{digits}f}" if len(values) > 1 else text


def difference(values: Sequence[float]) -> str:
    """The mean with its sign, and with several values its 95 % interval."""
    text = f"{mean(values):+.1f}"
    return "{} [{:+.1f}, {:+.1f}]".format(text, *interval(values)) if len(values) > 1 else text


def interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """The confidence interval of the mean by Student's t; it needs two values or more."""
    half = t.ppf((1 + confidence) / 2, len(values) - 1) * stdev(values) / len(values) ** 0.5
    return float(mean(values) - half), float(mean(values) + half)


def in_markdown(plan: Plan, worlds: Sequence[WorldResults]) -> str:
    """All tables, as they are printed."""
    return "\n\n".join(
        [
            markdown("labels, held against the truth", AGREEMENT, agreement_rows(worlds)),
            markdown("people held out, %", tuple(SCORES), score_rows(worlds)),
            markdown("differences, points", tuple(SCORES), difference_rows(worlds)),
            about_differences(len(worlds)),
            about_finetuned(plan),
            markdown("fine-tuned, %", FINETUNED, finetuned_rows(worlds)),
        ]
    )


def markdown(title: str, columns: Sequence[str], rows: Rows) -> str:
    """A table in Markdown, with columns of even width."""
    cells = [(title, *columns), *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(columns) + 1)]
    head, *lines = [" | ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in cells]
    rule = "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])])
    return "\n".join([f"| {head} |", f"|{rule}|", *(f"| {line} |" for line in lines)])


def _percent(worlds: Sequence[WorldResults], contestant: str, value: Callable[[Scores], float]) -> list[float]:
    return [100 * value(world.scores(contestant)) for world in worlds]
