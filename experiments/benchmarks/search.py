"""What does it cost to ask a gallery of a million images, exactly and by a graph of neighbours? What does that miss?

    pip install -e '.[search]' && python -m experiments.benchmarks.search

Features are drawn: each person has a place, and images scatter around it. Queries are further images of these people.
CPU seconds are those of all cores together. Memory is the largest that the process had until then, features and all.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cion_jax.evaluate.distances import unit
from cion_jax.gallery import graph
from cion_jax.gallery.search import exact_neighbours
from experiments.benchmarks.command import command
from experiments.benchmarks.timing import environment, resident

#: Dimensions in which people differ; the features of networks do not fill their width either.
INTRINSIC = 64
TOP = 10
#: Features that are drawn at a time.
TOGETHER = 1 << 16


def main(
    images: int = 1_000_000, width: int = 512, people: int = 50_000, noise: float = 0.8, queries: int = 1_000
) -> None:
    """Print a Markdown table.

    Args:
        images: Images in the gallery.
        width: Of a feature.
        people: People whom they show.
        noise: Standard deviation of images around their person, if that of people is 1.
        queries: Images that ask.
    """
    print(f"{environment('jax', 'numpy', 'usearch')}\n")
    print(f"{images:,} images of {people:,} people, {width}-d, noise {noise}; {queries:,} queries, the nearest {TOP}\n")
    vectors, asking = drawn(images, width, people, noise, queries)
    print("| | seconds | CPU seconds | time / exact search | recall@10 | peak memory, GiB |")
    print("|---|---|---|---|---|---|")
    exact_neighbours(vectors, asking[:256], TOP)  # compiles, and touches the memory
    exact, once = _timed(lambda: exact_neighbours(vectors, asking, TOP))
    _row("exact search", once, once, "1")
    index, built = _timed(lambda: graph.build(vectors))
    _row("the graph, made once", built, once)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "graph.usearch")
        index.save(path)
        size = path.stat().st_size
        mapped = graph.load(path, images, width)
        graph.neighbours(mapped, vectors, asking, TOP)  # reads the file
        near, sought = _timed(lambda: graph.neighbours(mapped, vectors, asking, TOP))
        found = np.mean([len(np.intersect1d(*pair)) for pair in zip(exact, near, strict=True)]) / TOP
        _row("search by the graph", sought, once, f"{found:.3f}")
    print(f"\nThe file of the graph has {size / images:,.0f} bytes an image, features {vectors.itemsize * width:,}.")


def drawn(images: int, width: int, people: int, noise: float, queries: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of the gallery (images, width) and of queries (queries, width), float32."""
    random = np.random.default_rng(0)
    places = random.standard_normal((people, INTRINSIC), np.float32)
    mixed = random.standard_normal((INTRINSIC, width), np.float32)
    result = np.empty((images + queries, width), np.float32)
    for start in range(0, len(result), TOGETHER):
        rows = result[start : start + TOGETHER]
        scattered = noise * random.standard_normal((len(rows), INTRINSIC), np.float32)
        rows[:] = unit((places[random.integers(people, size=len(rows))] + scattered) @ mixed, "features")
    return result[:images], result[images:]


def _timed(work: Callable[[], Any]) -> tuple[Any, tuple[float, float]]:
    """What some work returns, and the seconds that it takes: on the clock, and of all cores together."""
    began, cpu_began = time.perf_counter(), time.process_time()
    result = work()
    return result, (time.perf_counter() - began, time.process_time() - cpu_began)


def _row(name: str, seconds: tuple[float, float], exact: tuple[float, float], recall: str = "") -> None:
    cells = [name, *(f"{value:,.1f}" for value in seconds), f"{seconds[0] / exact[0]:.3g}", recall]
    print(f"| {' | '.join(cells)} | {resident('VmHWM') / 2**30:.1f} |", flush=True)


if __name__ == "__main__":
    command(main)
