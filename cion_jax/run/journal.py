"""The journal of a training run: every step's numbers in files, a progress bar, and a warning when the run collapses.

RUN/metrics.jsonl    one JSON object per step; `read_metrics` reads it, and so does `tail -f`
RUN/tensorboard/     the same numbers, and the profile, for `tensorboard --logdir RUN`
"""

import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column
from tensorboardX import SummaryWriter
from tensorboardX.proto.summary_pb2 import Summary

from cion_jax.atomic import write_atomically
from cion_jax.errors import UserError
from cion_jax.programs.devices import utilization
from cion_jax.untrusted import open_file

METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"

#: Steps over which speed and waiting are averaged.
WINDOW = 20
#: A job without a terminal shows that it lives every so many seconds.
LINE_SECONDS = 60.0
#: TensorBoard sees a number after at most so many seconds.
FLUSH_SECONDS = 10
#: No line of metrics has so many bytes.
_MOST_LINE = 1 << 20

#: Steps that are not judged: the center starts from 0, and a fresh network sees all images nearly alike.
SETTLED = 100
#: Nats. A distribution this sharp has 99.9 % on one prototype; the mean over images is so only if all of them have.
ENTROPY_FLOOR = 0.01
#: Share of the spread of unrelated unit vectors. The rounding of bfloat16 alone makes equal features differ by 0.002.
FEATURE_FLOOR = 0.01
#: Cosines. Features at random over 1,024 prototypes leave a norm of 0.01 by chance, more prototypes a larger one.
CENTER_FLOOR = 1e-3
_FLOORS = {
    "entropy": (ENTROPY_FLOOR, "the teacher puts every image on one prototype; raise teacher_temperature"),
    "feature_std": (FEATURE_FLOOR, "the teacher's features are the same for all images; lower learning_rate"),
    "center_norm": (CENTER_FLOOR, "the teacher's logits are nothing on average; see that its head is still alive"),
}


class Journal:
    """Writes down what each step of a run reports, and shows it on stderr.

    Use it in a `with`. A run that resumes at `first_step` drops what it had written of that step and of later ones, so
    that no step is in the files twice. A run of many processes keeps one journal, in one of them.
    """

    def __init__(
        self, folder: Path, total_steps: int, first_step: int, images_per_step: int, flops_per_step: float | None
    ):
        """Open the journal of the run in a folder.

        Args:
            folder: The run's own; it is made where it is missing.
            total_steps: Steps of the whole run.
            first_step: The first step that will be recorded; 0, or where a checkpoint ended.
            images_per_step: Images in a step, over all devices.
            flops_per_step: What the model needs for them, over all devices; None where that is not known.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / METRICS).exists():
            _forget(folder / METRICS, first_step)
        self._images, self._flops = images_per_step, flops_per_step
        self._lines = (folder / METRICS).open("ab", buffering=0)  # a write is a line: a kill tears none but the last
        self._scalars = SummaryWriter(
            str(folder / TENSORBOARD),
            purge_step=first_step,
            flush_secs=FLUSH_SECONDS,
            filename_suffix=f".{first_step}",  # or a resume in the same second writes over the file before
        )
        self._console = Console(stderr=True)
        status = TextColumn("{task.description}", table_column=Column())  # a narrow terminal breaks it into lines
        columns = (BarColumn(16), MofNCompleteColumn(), TimeRemainingColumn(), status)
        hidden = not self._console.is_terminal
        self._bar = Progress(*columns, console=self._console, transient=True, disable=hidden, get_time=monotonic)
        self._task = self._bar.add_task("", total=total_steps, completed=first_step)
        self._moments: deque[tuple[float, float]] = deque(maxlen=WINDOW + 1)
        self._warned: set[str] = set()
        self._printed = -math.inf
        self._elsewhere: Callable[[int, Mapping[str, float]], object] = lambda step, values: None

    def __enter__(self) -> "Journal":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        self._scalars.close()
        self._lines.close()

    def record(self, step: int, epoch: float, values: Mapping[str, float], waited: float) -> None:
        """Write down a finished step: steps in order, each once.

        Speed, the share of time spent waiting for data and, on devices whose peak is known, the share of it that is
        used (`mfu`) are added to the values, from the second step on.

        Args:
            step: Its number, from 0.
            epoch: Epochs so far, with a fraction.
            values: Its numbers by name; those that `watch` knows are watched.
            waited: Seconds in which the loop stood waiting for data since the last record.
        """
        self._moments.append((monotonic(), waited))
        result = {"epoch": epoch, **values, **self._speed()}
        warnings = {kind: text for kind, text in watch(step, values).items() if kind not in self._warned}
        self._lines.write(_line({"step": step, "time": time.time(), **result}, "; ".join(warnings.values())))
        self._scalars.file_writer.add_summary(  # one event for all: 12 times faster than one for each
            Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in result.items()]), step
        )
        self._elsewhere(step, result)
        self._warned |= warnings.keys()
        for text in warnings.values():
            self.say(f"step {step:,}: {text}")
        self._show(step, result)

    def also_log(self, log: Callable[[int, Mapping[str, float]], object]) -> None:
        """Hand each step's number and all that is recorded of it to a function, too."""
        self._elsewhere = log

    @contextmanager
    def progress_bar(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show work other than steps while it lasts; call what is yielded with the number of further pieces done."""
        self.say(what)
        task = self._bar.add_task(what, total=total)
        try:
            yield lambda done: self._bar.advance(task, done)
        finally:
            self._bar.remove_task(task)

    def _speed(self) -> dict[str, float]:
        """Over the last steps; empty while there is but one."""
        steps, seconds = len(self._moments) - 1, self._moments[-1][0] - self._moments[0][0]
        if not seconds:
            return {}
        waited = sum(waited for _, waited in self._moments) - self._moments[0][1]
        speed = {"images_per_second": steps * self._images / seconds, "waiting": waited / seconds}
        if self._flops is not None:
            mfu = utilization(steps * self._flops / seconds, jax.devices()[0].device_kind, jax.device_count())
            speed |= {} if mfu is None else {"mfu": mfu}
        return speed

    def _show(self, step: int, values: Mapping[str, float]) -> None:
        """Move the bar; where there is none print a line, the first at once."""
        status = _status(values)
        self._bar.update(self._task, completed=step + 1, description=status)
        if self._bar.disable and monotonic() >= self._printed + LINE_SECONDS:
            self._printed = monotonic()
            task = self._bar.tasks[0]
            left = "" if task.time_remaining is None else f"{timedelta(seconds=int(task.time_remaining))} left  "
            self.say(f"step {task.completed:,}/{task.total:,}  {left}{status}")

    def say(self, text: str) -> None:
        """Show a line above the bar."""
        self._console.print(text, soft_wrap=True, markup=False, highlight=False)


class Silence(Journal):
    """The journal of every process but the one that keeps it."""

    def __init__(self) -> None:
        """Open nothing."""

    def __enter__(self) -> "Silence":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def record(self, step: int, epoch: float, values: Mapping[str, float], waited: float) -> None:
        """Write nothing down."""

    def say(self, text: str) -> None:
        """Show nothing."""

    @contextmanager
    def progress_bar(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show nothing."""
        yield lambda done: None


def watch(step: int, values: Mapping[str, float]) -> dict[str, str]:
    """What looks like the end of a run in a step's values, by kind, with a remedy; empty while all is well.

    Known are `entropy` (mean of the teacher's distributions, nats), `feature_std` (over the batch, of the teacher's
    unit features, mean over dimensions times the root of their number: 1 when spread, 0 when equal) and `center_norm`.
    """
    result = {}
    for name, (floor, text) in _FLOORS.items():
        if step >= SETTLED and values.get(name, floor) < floor:
            result[name] = f"{name} is {values[name]:.2g}, below {floor}: {text}"
    return result


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The steps in a `metrics.jsonl`, in order; a last line that a killed run left unfinished is passed over."""
    return [row for _, row in _rows(path)]


#: JSON has no such numbers: they are written as these strings.
_NUMBERS: dict[Any, float] = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def _line(row: Mapping[str, float], warning: str) -> bytes:
    valid = {name: value if math.isfinite(value) else str(value) for name, value in row.items()}
    return json.dumps(valid | ({"warning": warning} if warning else {}), allow_nan=False).encode() + b"\n"


def _rows(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Whole lines and what they say; steps rise, and all values but the warning are numbers."""
    last = -1
    with open_file(path, "name a run whose files are whole") as file:
        for number, line in enumerate(iter(lambda: file.readline(_MOST_LINE), b""), 1):
            if not line.endswith(b"\n") and len(line) < _MOST_LINE:
                return
            try:
                row = _row(line)
                if row["step"] <= last:
                    raise ValueError
            except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
                raise UserError(f"{path}: line {number} is no step's metrics; remove the line") from None
            last = row["step"]
            yield line, row


def _row(line: bytes) -> dict[str, Any]:
    """What a line says; any of many exceptions if it is not one that `_line` wrote."""
    row = json.loads(line)
    values = {name: value for name, value in row.items() if name != "warning"}
    numbers = {name: _NUMBERS[value] if isinstance(value, str) else value for name, value in values.items()}
    if type(row["step"]) is not int or not isinstance(row.get("warning", ""), str):
        raise TypeError
    for value in numbers.values():
        if type(value) not in (int, float):
            raise TypeError
        float(value)  # a whole number may be too large for one
    return row | numbers


def _forget(path: Path, first_step: int) -> None:
    """Keep only whole lines of earlier steps."""

    def write(aside: Path) -> None:
        with aside.open("wb") as file:
            file.writelines(line for line, row in _rows(path) if row["step"] < first_step)

    write_atomically(path, write)


def _status(values: Mapping[str, float]) -> str:
    """The numbers that one looks at, most wanted first."""
    wanted = {
        "loss": "loss {:.3f}",
        "images_per_second": "{:,.0f} images/s",
        "waiting": "waiting {:.0%}",
        "epoch": "epoch {:.2f}",
        "entropy": "entropy {:.2f}",
    }
    return "  ".join(text.format(values[name]) for name, text in wanted.items() if name in values)
