"""Work that Apache Beam spreads, on whatever it runs: the same as processes here would do, one element for each task.

What is done stands in the folder that is written, as it does there, so that a pipeline that failed or was stopped is
taken up by the same command, with Beam or without.
"""

import pickle
import shlex
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from cion_jax.config import Writing
from cion_jax.data.files import StoreError, located, make_folder, matching, put, read, read_range, remove_folder
from cion_jax.errors import UserError
from cion_jax.terminal import Progress

Task = TypeVar("Task")
_REFUSALS = ".refused"
#: Beam's DirectRunner would first fetch another program (Prism) to run the pipeline in; this is Beam's own in Python.
_RUNNERS = {"DirectRunner": "apache_beam.runners.portability.fn_api_runner.FnApiRunner"}


def spread(work: Callable[[Task, Progress], object], tasks: Iterator[Task], file: Path, writing: Writing) -> None:
    """Do all tasks by the Beam runner that the settings name.

    Args:
        work: Does a task, and tells its progress, which Beam counts. What it returns is not kept.
        tasks: What to do.
        file: Where tasks are kept for the workers, in a folder that they see.
        writing: The runner and its options.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError:
        raise UserError("--beam-runner needs Apache Beam; `pip install 'cion-jax[beam]'`") from None
    places = _write_tasks(tasks, file)
    if not places:
        return
    print(f"{writing.beam_runner}: {len(places):,} {file.name} to do; its log says how far it is", file=sys.stderr)
    refusals = file.parent / f"{file.name}{_REFUSALS}"
    remove_folder(refusals)  # of a pipeline before this one
    make_folder(refusals)
    try:
        runner = _RUNNERS.get(writing.beam_runner, writing.beam_runner)
        options = PipelineOptions([f"--runner={runner}", *shlex.split(writing.beam_options)])
        with beam.Pipeline(options=options) as pipeline:
            elements = pipeline | beam.Create(places) | beam.Reshuffle()
            elements | beam.Map(_do, file=str(file), work=work)
    except Exception as error:  # each runner has errors of its own
        why = textwrap.shorten(f"{type(error).__name__}: {error}", 400)
        raise UserError(f"--beam-runner {writing.beam_runner}: the pipeline failed ({why}); what is done is kept, so "
                        "mend the cause and repeat the command") from None  # fmt: skip
    if refused := sorted(matching(refusals, "*")):
        more = f" (and {len(refused) - 1:,} more)" if len(refused) > 1 else ""
        raise UserError(f"{read(refusals / refused[0]).decode()}{more}")


def _write_tasks(tasks: Iterator[Any], file: Path) -> list[tuple[int, int]]:
    """Put tasks into one file, of which each worker reads its part; a pipeline itself has no room for many.

    They are pickled, as Beam sends what runs on its workers: who may write there could change that as well.
    """
    places = []

    def write(path: Path) -> None:
        with path.open("wb") as out:
            for task in tasks:
                data = pickle.dumps(task)
                places.append((out.tell(), len(data)))
                out.write(data)

    put(file, write)
    return places


def _do(place: tuple[int, int], file: str, work: Callable[[Any, Progress], object]) -> None:
    """Do one task. What the user has to mend is noted for the one who waits: to try it again would help nobody."""
    from apache_beam.metrics import Metrics

    start, size = place
    tasks = located(file)
    try:
        work(pickle.loads(read_range(tasks, start, size)), Metrics.counter("cion", work.__name__).inc)
    except StoreError:
        raise
    except UserError as error:
        line = str(error)
        put(tasks.parent / f"{tasks.name}{_REFUSALS}" / f"{start:015d}", lambda path: path.write_text(line))
