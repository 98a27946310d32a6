"""What does the loss cost? Head and loss, forward and backward, as published in torch and in three forms of ours.

pip install -e '.[torch]' && python -m experiments.benchmarks.loss
"""

import functools
import importlib
import importlib.util
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from cion_jax.models import head
from cion_jax.pretrain.loss import loss_from_logits, loss_in_blocks
from experiments.benchmarks.command import command
from experiments.benchmarks.timing import environment, resident

_BLOCKS = "ours: in blocks of prototypes"


class Size(NamedTuple):
    """How large the problem is."""

    batch: int
    views: int
    instances: int
    prototypes: int
    block: int
    features: int = 2048


def main(
    batch: int = 48,
    views: int = 10,
    instances: int = 8,
    prototypes: int = 65336,
    block: int = 8192,
    rounds: int = 7,
) -> None:
    """Give each contestant a process of its own and let them take turns; float32, all of the machine's cores.

    Args:
        batch: Images.
        views: Views of an image for the student; the teacher has two.
        instances: Images of an identity.
        prototypes: Rows of the last layer.
        block: Prototypes that our form looks at together.
        rounds: How often each works; the printed figures are medians.
    """
    size = Size(batch, views, instances, prototypes, block)
    print(environment("jax", "torch"))
    print(f"{size.features} features, {batch} images, {views} views, K = {instances}, {prototypes:,} prototypes\n")
    contestants: dict[str, Callable[[Size], Callable[[], float]]] = {
        _BLOCKS: functools.partial(_jax, _in_blocks),
        "the same, but logits made for their log-sum-exp": functools.partial(_jax, _bottleneck),
        "closed form on logits": functools.partial(_jax, _from_logits),
    }
    if importlib.util.find_spec("torch"):
        contestants["loops in torch, log_softmax taken once"] = functools.partial(_torch, True)
        contestants["loops in torch, as published"] = functools.partial(_torch, False)
    processes = {name: _Process(make, size) for name, make in contestants.items()}
    seconds: dict[str, list[float]] = {name: [] for name in processes}
    for number in range(rounds + 1):
        for name, process in processes.items():
            taken = process.work()
            seconds[name] += [taken] if number else []
    print("| | seconds (median) | range | this / first | peak memory, MB | this / first | loss |")
    print("|---|---|---|---|---|---|---|")
    peak = {name: process.end() for name, process in processes.items()}
    for name, times in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(times, seconds[_BLOCKS], strict=True))
        print(
            f"| {name} | {statistics.median(times):.2f} | {min(times):.2f} to {max(times):.2f} | {ratio:.1f} "
            f"| {peak[name] / 1e6:,.0f} | {peak[name] / peak[_BLOCKS]:.1f} | {processes[name].loss:.5f} |"
        )
    if len(processes) == 3:
        print("| loops in torch | absent | | | | | |")
    _print_loops(size)


class _Process:
    """A contestant in a process of its own, which works when it is asked to."""

    def __init__(self, make: Callable[[Size], Callable[[], float]], size: Size) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, its_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(its_end, make, size), daemon=True)
        self._process.start()
        its_end.close()
        self._pipe.recv()

    def work(self) -> float:
        self._pipe.send(True)
        taken, self.loss = self._pipe.recv()
        return taken

    def end(self) -> int:
        """Peak memory of the work in bytes, beyond what the process had with all weights and inputs in place."""
        self._pipe.send(False)
        peak = self._pipe.recv()
        self._process.join()
        return peak


def _serve(pipe: Connection, make: Callable[[Size], Callable[[], float]], size: Size) -> None:
    work = make(size)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    pipe.send(None)
    while pipe.recv():
        began = time.perf_counter()
        loss = work()
        pipe.send((time.perf_counter() - began, loss))
    pipe.send(resident("VmHWM") - before)


def _inputs(size: Size) -> tuple[Any, Any, jax.Array, jax.Array]:
    """Heads of student and teacher, features of both (batch-major)."""
    features = jax.random.normal(jax.random.key(2), (size.batch, size.views, size.features))
    student, teacher = (head.init(jax.random.key(seed), size.features, size.prototypes) for seed in (0, 1))
    return student, teacher, features, features[:, :2] + 0.1


class _Vectors(NamedTuple):
    """What a loss compares: bottleneck vectors and prototypes of student and teacher."""

    student: Any
    """(B, V, D)"""
    teacher: Any
    """(B, 2, D)"""
    prototypes: Any
    """(C, D)"""
    teacher_prototypes: Any


def _vectors(student: Any, teacher: Any, features: Any, teacher_features: Any) -> _Vectors:
    return _Vectors(
        head.bottleneck(student, features),
        head.bottleneck(teacher, teacher_features),
        head.prototypes(student),
        head.prototypes(teacher),
    )


def _in_blocks(size: Size, vectors: _Vectors) -> Any:
    return loss_in_blocks(
        *vectors,
        jnp.zeros(size.prototypes),
        instances=size.instances,
        student_temperature=0.1,
        teacher_temperature=0.04,
        block=size.block,
    )[0]


def _from_logits(size: Size, vectors: _Vectors) -> Any:
    logits_BxVxC = vectors.student @ vectors.prototypes.T
    teacher_logits_Bx2xC = vectors.teacher @ vectors.teacher_prototypes.T
    return loss_from_logits(logits_BxVxC, teacher_logits_Bx2xC, jnp.zeros(size.prototypes), instances=size.instances)


def _targets(vectors: _Vectors) -> Any:
    """q, the teacher's softmax (B, 2, C)."""
    logits_Bx2xC = vectors.teacher @ vectors.teacher_prototypes.T / 0.04
    return jax.lax.stop_gradient(jax.nn.softmax(logits_Bx2xC))


def _bottleneck(size: Size, vectors: _Vectors) -> Any:
    """All logits for their log-sum-exp; teacher and student meet in the bottleneck.

    2 (V-1) B Loss = sum_v c_v sum_b lse(z_vb W' / tau) - (1 / tau) sum_u sum_b (q_u W)_b . M(sum_{v != u} z_v)_b
    """
    z_BxVxD, prototypes_CxD = vectors.student, vectors.prototypes
    instances = size.instances
    # M(sum_{v != u} z_v): of the other views, those of the other instances K times less K - 1 times its own
    others_Bx2xD = z_BxVxD.sum(1, keepdims=True) - z_BxVxD[:, :2]
    groups = others_Bx2xD.reshape(-1, instances, *others_Bx2xD.shape[1:])
    mixed = instances * groups.sum(1, keepdims=True) - (instances - 1) * groups
    # The cross term; it has the factor 1 / (K (K - 1) + 1) of M.
    products_Bx2xC = _targets(vectors) * (mixed.reshape(others_Bx2xD.shape) @ prototypes_CxD.T)
    agreement = products_Bx2xC.sum() / (instances * (instances - 1) + 1) / 0.1
    # c_v: a global view is compared with one of the teacher's views, a local view with both.
    pairs_V = jnp.where(jnp.arange(size.views) < 2, 1, 2)
    spread = (pairs_V * logsumexp(z_BxVxD @ prototypes_CxD.T / 0.1, axis=-1)).sum()
    return (spread - agreement) / (2 * (size.views - 1) * size.batch)


def _loops(targets_2xBxC: Any, students_VxBxC: Any, instances: int, log_softmax: Callable[[Any], Any]) -> Any:
    """The published form, of torch or of JAX as the arrays are. DINO's code takes log_softmax in each term anew."""
    total = 0.0
    pairs = [(u, v) for u in range(2) for v in range(len(students_VxBxC)) if u != v]
    for u, v in pairs:
        q = targets_2xBxC[u]
        p = students_VxBxC[v]
        loss = (-q * log_softmax(p)).sum(-1).mean()
        for i in range(instances):
            for j in range(instances):
                if i != j:
                    loss = loss + (-q[i::instances] * log_softmax(p[j::instances])).sum(-1).mean()
        total = total + loss / (instances * (instances - 1) + 1)
    return total / len(pairs)


def _jax_loops(size: Size, vectors: _Vectors) -> Any:
    logits_BxVxC = vectors.student @ vectors.prototypes.T / 0.1
    return _loops(_targets(vectors).swapaxes(0, 1), logits_BxVxC.swapaxes(0, 1), size.instances, jax.nn.log_softmax)


def _compiled(loss: Callable[..., Any], size: Size) -> Any:
    def whole(student: Any, teacher: Any, features: Any, teacher_features: Any) -> Any:
        return loss(size, _vectors(student, teacher, features, teacher_features))

    shapes = jax.eval_shape(functools.partial(_inputs, size))
    return jax.jit(jax.value_and_grad(whole)).lower(*shapes).compile()


def _jax(loss: Callable[..., Any], size: Size) -> Callable[[], float]:
    values = jax.block_until_ready(jax.tree.map(jnp.asarray, _inputs(size)))
    program = _compiled(loss, size)
    return lambda: float(jax.block_until_ready(program(*values))[0])


def _torch(once: bool, size: Size) -> Callable[[], float]:
    """Loops in torch; log_softmax is taken once for all, or in each term as published."""
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    student, teacher, *features = _inputs(size)
    trained, fixed = ([torch.from_numpy(array) for array in _torch_weights(each)] for each in (student, teacher))
    del student, teacher
    x_VxBxF, y_2xBxF = (torch.from_numpy(np.ascontiguousarray(np.swapaxes(np.array(each), 0, 1))) for each in features)
    for weight in trained:
        weight.requires_grad_()
    log_softmax = functools.partial(torch.log_softmax, dim=-1)

    def logits(x: Any, weights: list[Any]) -> Any:
        functions = torch.nn.functional
        for i in (0, 2):
            x = functions.gelu(functions.linear(x, weights[i], weights[i + 1]))
        x = functions.normalize(functions.linear(x, *weights[4:6]), dim=-1)
        return functions.linear(x, functions.normalize(weights[6], dim=-1))

    def work() -> float:
        for weight in trained:
            weight.grad = None
        with torch.no_grad():
            targets = torch.softmax(logits(y_2xBxF, fixed) / 0.04, -1)
        students = logits(x_VxBxF, trained) / 0.1
        if once:
            loss = _loops(targets, log_softmax(students), size.instances, lambda logs: logs)
        else:
            loss = _loops(targets, students, size.instances, log_softmax)
        loss.backward()
        return float(loss.detach())

    return work


def _torch_weights(variables: Any) -> list[np.ndarray]:
    """A head's weights as torch has them: kernel and bias of three layers, and the prototypes."""
    params = variables["params"]
    layers = [params[name] for name in ("mlp.0", "mlp.2", "mlp.4")]
    linear = [np.array(array) for layer in layers for array in (layer["kernel"].T, layer["bias"])]
    return [*linear, np.array(params["last_layer"]["weight_v"])]


def _print_loops(size: Size) -> None:
    """The same loops under jit: run at a size that fits, only compiled at the full one."""
    small = size._replace(prototypes=min(size.prototypes, 256))
    values = _inputs(small)
    program = _compiled(_jax_loops, small)
    program(*values)
    began = time.perf_counter()
    loss = float(program(*values)[0])
    print(
        f"\nThe published loops under jit: {time.perf_counter() - began:.2f} s with {small.prototypes} prototypes "
        f"(loss {loss:.5f}); with {size.prototypes:,} XLA asks for "
        f"{_compiled(_jax_loops, size).memory_analysis().temp_size_in_bytes / 1e9:,.1f} GB."
    )


if __name__ == "__main__":
    command(main)
