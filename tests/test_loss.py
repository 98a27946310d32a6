"""The loss: three ways to write it, golden values, invariances, and what is made on the way.

Run as a program, this file checks the sharded form; a test does so with eight devices.
"""

import functools
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from cion_jax.errors import UserError
from cion_jax.pretrain.loss import loss_from_logits, loss_in_blocks, loss_on_mesh, next_center
from golden_weights import golden
from plain_loss import plain

TEMPERATURES = {"student_temperature": 0.1, "teacher_temperature": 0.04}
INSTANCES = {0: 2, 45: 4, 70: 6, 99: 8}
Arrays = tuple[np.ndarray, ...]


def arrays(images: int = 24, views: int = 3, prototypes: int = 40, width: int = 8) -> Arrays:
    """Unit vectors of student and teacher, prototypes of both, and a center; float64."""
    random = np.random.RandomState(0)
    shapes = (images, views, width), (images, 2, width), (prototypes, width), (prototypes, width)
    rows = [random.standard_normal(shape) for shape in shapes]
    return *(x / np.linalg.norm(x, axis=-1, keepdims=True) for x in rows), 0.1 * random.standard_normal(prototypes)


def on_logits(
    student: Any, teacher: Any, prototypes: Any, teacher_prototypes: Any, center: Any, **settings: Any
) -> Any:
    """The closed form, called like the blocked one."""
    logits = (teacher @ teacher_prototypes.T - center) / 0.04
    entropy = -(jax.nn.softmax(logits) * jax.nn.log_softmax(logits)).sum(-1).mean()
    return loss_from_logits(student @ prototypes.T, teacher @ teacher_prototypes.T, center, **settings), entropy


def gradients(form: Callable[..., Any], *values: Any, **settings: Any) -> Any:
    """(loss, entropy), (gradient of the student's vectors, of the prototypes)."""
    return compiled(form, *settings.items())(*values)


@functools.cache
def compiled(form: Callable[..., Any], *settings: tuple[str, Any]) -> Callable[..., Any]:
    return jax.jit(jax.value_and_grad(functools.partial(form, **dict(settings)), (0, 2), has_aux=True))


def assert_close(found: Any, expected: Any, relative: float) -> None:
    """Each array differs by at most a fraction of its largest value."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert a.shape == b.shape
        assert np.abs(a - b).max() <= relative * np.abs(b).max()


@functools.cache
def recorded() -> dict[str, np.ndarray]:
    return golden("loss")


def recorded_inputs(views: int) -> Arrays:
    """Logits of student and teacher, batch-major, and the center."""
    random = np.random.RandomState(3 + (2, 6, 10).index(views))
    shapes = (views * 24, 512), (48, 512)
    student, teacher = (random.standard_normal(shape).astype(np.float32) for shape in shapes)
    center = (0.01 * random.standard_normal((1, 512))).astype(np.float32)
    return student.reshape(views, 24, 512).swapaxes(0, 1), teacher.reshape(2, 24, 512).swapaxes(0, 1), center[0]


@pytest.mark.parametrize("views", [2, 6, 10])
@pytest.mark.parametrize("epoch", INSTANCES)
def test_all_forms_equal_the_golden_values(views: int, epoch: int) -> None:
    """With the unit matrix as prototypes, logits are their own bottleneck."""
    name = f"nc{views}_ep{epoch}_"
    expected = {key.removeprefix(name): value for key, value in recorded().items() if key.startswith(name)}
    student, teacher, center = recorded_inputs(views)
    instances = INSTANCES[epoch]
    assert instances == expected["num_instances"]
    kinds = [(True, np.float64, 1e-9), (False, np.float32, 1e-5)]
    for x64, precision, relative in kinds if views == 6 else kinds[:1]:
        with jax.enable_x64(x64):
            unit = np.eye(512, dtype=precision)
            values = student.astype(precision), teacher.astype(precision), unit, unit, center.astype(precision)
            settings = {"instances": instances, **TEMPERATURES}
            loss = expected["loss_f64"]
            for form, more in ((on_logits, {}), (loss_in_blocks, {"block": 200})):
                (result, _), (pull, _) = gradients(form, *values, **settings, **more)
                assert_close(result, loss, relative)
                pull = np.asarray(pull).swapaxes(0, 1).reshape(-1, 512)
                rows = expected["grad"] if "grad" in expected else expected["grad_rows"]
                assert_close(pull[: len(rows)], rows, max(relative, 1e-7))  # recorded in float32
                assert_close(np.linalg.norm(pull), expected["grad_norm"], relative)
            assert_close(plain(values[0], values[1], values[4], instances=instances), loss, relative)
            center_after = next_center(values[4], unit @ values[1].mean((0, 1)), 0.9)
            assert_close(center_after, expected["center"].reshape(-1), max(relative, 1e-7))


@pytest.mark.parametrize(("instances", "views"), [(1, 2), (1, 6), (1, 10), (2, 10), (4, 2), (6, 6), (8, 10)])
def test_blocks_equal_the_closed_form_and_the_loops(instances: int, views: int) -> None:
    """40 prototypes in blocks of 16, so that the last block reaches back."""
    with jax.enable_x64(True):
        values = student, teacher, prototypes, teacher_prototypes, center = arrays(views=views)
        settings = {"instances": instances, **TEMPERATURES}
        expected = gradients(on_logits, *values, **settings)
        assert_close(gradients(loss_in_blocks, *values, **settings, block=16), expected, 1e-9)
        logits = student @ prototypes.T, teacher @ teacher_prototypes.T
        assert_close(plain(*logits, center, instances=instances), expected[0][0], 1e-9)
    result = gradients(loss_in_blocks, *(x.astype(np.float32) for x in values), **settings, block=16)
    assert_close(result, expected, 1e-5)


@pytest.mark.parametrize("block", [1, 7, 20, 39, 40, 41])
def test_the_size_of_blocks_does_not_matter(block: int) -> None:
    with jax.enable_x64(True):
        settings = {"instances": 2, **TEMPERATURES}
        expected = gradients(on_logits, *arrays(), **settings)
        assert_close(gradients(loss_in_blocks, *arrays(), **settings, block=block), expected, 1e-9)


def test_the_center_follows_the_mean_of_all_logits() -> None:
    with jax.enable_x64(True):
        _, teacher, _, prototypes, center = arrays()
        expected = 0.7 * center + 0.3 * (teacher @ prototypes.T).mean((0, 1))
        assert_close(next_center(center, prototypes @ teacher.mean((0, 1)), 0.7), expected, 1e-12)


def test_one_instance_is_plain_dino() -> None:
    with jax.enable_x64(True):
        student, teacher, prototypes, teacher_prototypes, center = values = arrays(views=4)
        targets = jax.nn.softmax((teacher @ teacher_prototypes.T - center) / 0.04)
        crossed = -jnp.einsum("buc,bvc->buv", targets, jax.nn.log_softmax(student @ prototypes.T / 0.1)).mean(0)
        expected = crossed[~np.eye(2, 4, dtype=bool)].mean()
        assert_close(loss_in_blocks(*values, instances=1, **TEMPERATURES, block=16)[0], expected, 1e-12)


def test_neither_the_order_of_identities_nor_that_of_their_images_matters() -> None:
    """But who belongs to whom does."""
    random = np.random.RandomState(1)
    rows = np.arange(24).reshape(6, 4)
    shuffled = np.concatenate([random.permutation(identity) for identity in random.permutation(rows)])
    with jax.enable_x64(True):
        student, teacher, *rest = arrays()
        run = jax.jit(
            jax.value_and_grad(functools.partial(loss_in_blocks, instances=4, **TEMPERATURES, block=16), (0, 2), True)
        )
        loss, (pull, push) = run(student, teacher, *rest)
        assert_close(run(student[shuffled], teacher[shuffled], *rest), (loss, (pull[shuffled], push)), 1e-12)
        other = run(student[rows.T.ravel()], teacher[rows.T.ravel()], *rest)[0]
        assert abs(other[0] - loss[0]) > 1e-3


def test_large_logits_stay_finite() -> None:
    """Logits up to 10^5 and prototypes in an order in which the largest come last, first, or are equal."""
    student, teacher, prototypes, *_ = arrays()
    for grows in (
        np.geomspace(1, 4000, 40),
        np.geomspace(4000, 1, 40),
        np.full(40, 4000.0),
        -np.geomspace(1, 4000, 40),
    ):
        rows = prototypes * grows[:, None]
        settings = {"instances": 2, "student_temperature": 0.04, "teacher_temperature": 0.04}
        values = student, teacher, rows, rows[::-1], 1000 * np.cos(np.arange(40))
        result = gradients(loss_in_blocks, *(x.astype(np.float32) for x in values), **settings, block=16)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(result))
        with jax.enable_x64(True):
            (expected, _), pulls = gradients(on_logits, *values, **settings)
            (exact, _), exact_pulls = gradients(loss_in_blocks, *values, **settings, block=16)
        assert_close(result[0][0], expected, 1e-4)  # float32 knows logits of 10^5 to 0.01: weights of ties, to 1 %
        assert_close((exact, exact_pulls), (expected, pulls), 1e-9)


def test_half_precision_is_that_of_products_alone() -> None:
    values = [x.astype(np.float32) for x in arrays()]
    settings = {"instances": 2, **TEMPERATURES, "block": 16}
    halves = [jnp.asarray(x, jnp.bfloat16) for x in values[:2]]
    (loss, entropy), (pull, push) = result = gradients(loss_in_blocks, *halves, *values[2:], **settings)
    assert [x.dtype for x in (loss, entropy, pull, push)] == [jnp.float32, jnp.float32, jnp.bfloat16, jnp.float32]
    assert_close(result, gradients(loss_in_blocks, *values, **settings), 0.01)


def test_gradients_reach_student_and_prototypes_only() -> None:
    values = [x.astype(np.float32) for x in arrays()]
    form = functools.partial(loss_in_blocks, instances=2, **TEMPERATURES, block=16)
    fixed = jax.jit(jax.grad(lambda *a: form(*a)[0], (1, 3, 4)))(*values)
    entropy = jax.jit(jax.grad(lambda *a: form(*a)[1], (0, 1, 2, 3, 4)))(*values)
    assert not any(np.any(x) for x in (*fixed, *entropy))
    twice = jax.jit(jax.grad(lambda *a: 2 * form(*a)[0]))(*values)
    assert_close(twice, 2 * gradients(form, *values)[1][0], 1e-6)


def made(jaxpr: Any) -> Iterator[tuple[str, int]]:
    """Every operation of a program, inner programs included, and the size of what it makes."""
    for equation in jaxpr.eqns:
        yield from ((equation.primitive.name, variable.aval.size) for variable in equation.outvars)
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from made(inner)


def test_nothing_of_rows_times_prototypes_is_made() -> None:
    """Not by the gradient either; and the value alone is one pass that makes nothing as large as the prototypes."""
    images, prototypes, width, block = 16, 1000, 8, 100
    values = arrays(images, 4, prototypes, width)
    settings = {"instances": 2, **TEMPERATURES}

    def program(form: Callable[..., Any], **more: Any) -> list[tuple[str, int]]:
        return list(made(jax.make_jaxpr(functools.partial(form, **settings, **more))(*values).jaxpr))

    def largest(found: list[tuple[str, int]]) -> int:
        return max(size for _, size in found)

    value = program(loss_in_blocks, block=block)
    both = program(functools.partial(gradients, loss_in_blocks), block=block)
    assert largest(program(on_logits)) == images * 4 * prototypes
    assert largest(value) == images * 4 * block < prototypes * width
    assert largest(both) == prototypes * width < images * 2 * prototypes


def test_devices_share_the_work() -> None:
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-W", "error", __file__], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def check_mesh(data: int, model: int) -> None:
    """Equal to one device; gradients of prototypes travel once, and nothing is gathered."""
    mesh = jax.make_mesh((data, model), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    student, *rest = arrays(images=32, views=4, prototypes=48, width=8)
    weights = np.random.RandomState(2).standard_normal((8, 8))
    settings = {"instances": 2, **TEMPERATURES, "block": 5}

    def outer(form: Callable[..., Any], weights: Any, student: Any, teacher: Any, rows: Any, *fixed: Any) -> Any:
        loss, entropy = form(jnp.tanh(student @ weights), teacher, 2 * rows, *fixed, **settings)
        return 3 * loss, entropy

    def run(form: Callable[..., Any], *values: Any) -> Any:
        return (
            jax.jit(jax.value_and_grad(functools.partial(outer, form), (0, 1, 3), has_aux=True))
            .lower(*values)
            .compile()
        )

    places = [PartitionSpec(), *[PartitionSpec("data")] * 2, *[PartitionSpec("model")] * 3]
    values = [
        jax.device_put(x, NamedSharding(mesh, at)) for x, at in zip((weights, student, *rest), places, strict=True)
    ]
    compiled = run(functools.partial(loss_on_mesh, mesh), *values)
    assert_close(compiled(*values), run(loss_in_blocks, weights, student, *rest)(weights, student, *rest), 1e-12)
    program = compiled.as_text()
    assert not re.search("all-gather|all-to-all|collective-permute|reduce-scatter", program)
    gradient = f"[{48 // model},8]"
    sums = [line.split("all-reduce(")[0] for line in program.splitlines() if "all-reduce(" in line]
    assert sum(line.count(gradient) for line in sums) == 1, sums


def check_what_cannot_be_shared() -> None:
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    settings = {"instances": 4, **TEMPERATURES, "block": 5}
    with pytest.raises(
        UserError, match=r"batch 24: 4 devices .* whole identities of 4 images; choose a multiple of 16"
    ):
        loss_on_mesh(mesh, *arrays(), **settings)
    with pytest.raises(UserError, match=r"head.prototypes 41: 2 devices \(model_axis\)"):
        loss_on_mesh(mesh, *arrays(images=32, prototypes=41), **settings)


if __name__ == "__main__":
    assert len(jax.devices()) == 8
    with jax.enable_x64(True):
        for shape in ((8, 1), (4, 2), (2, 4)):
            check_mesh(*shape)
        check_what_cannot_be_shared()
