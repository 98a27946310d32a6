"""Identity-guided self-distillation: one view of an image teaches all views of all images of its identity.

With h(a, b) = -softmax((teacher_a - center) / 0.04) . log_softmax(student_b / 0.1), teacher view u, student view v:

    L(u, v) = 1 / (K (K - 1) + 1) [ mean over images of h(x_u, x_v)
                                    + sum over instances i != j of the mean over identities of h(x^i_u, x^j_v) ]

averaged over the 2 (V - 1) pairs u != v. h is linear in log_softmax, so sums over views and instances can be taken
inside it: `_others` and `_mix` are all that is left of them. K = 1 is plain DINO. `loss_from_logits` is this loss as a
function of logits.

`loss_in_blocks` never makes logits. log_softmax is linear in them, apart from one number per row, its log-sum-exp; and
they are linear in the bottleneck vectors z. With q the softmax of the teacher and W the prototypes,

    loss = sum over images and u of [ others(lse(z W' / 0.1)) - (q W) . mix(others(z)) / 0.1 ] / (2 (V - 1) B)

where others() sums over the views v != u. lse and q W are gathered block by block of prototypes with a running
log-sum-exp, and the gradient goes over the blocks again.

Arrays are batch-major, (B, V, ...) for the student, whose first two views are those of the teacher, (B, 2, ...);
an identity's K images are consecutive rows of B. C is the number of prototypes, D the width of the bottleneck.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.nn import logsumexp
from jax.sharding import Mesh, PartitionSpec

from cion_jax.errors import UserError


def loss_from_logits(
    student_BxVxC: Array,
    teacher_Bx2xC: Array,
    center_C: Array,
    *,
    instances: int,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
) -> Array:
    """The loss from logits: for few prototypes, or to check against."""
    images, views, _ = student_BxVxC.shape
    targets = jax.nn.softmax(jax.lax.stop_gradient(teacher_Bx2xC - center_C) / teacher_temperature)
    logs = _others(jax.nn.log_softmax(student_BxVxC / student_temperature))
    return -(targets * _mix(logs, instances)).sum() / (2 * (views - 1) * images)


def loss_in_blocks(
    student_BxVxD: Array,
    teacher_Bx2xD: Array,
    prototypes_CxD: Array,
    teacher_prototypes_CxD: Array,
    center_C: Array,
    *,
    instances: int,
    student_temperature: float,
    teacher_temperature: float,
    block: int,
    axis: str | None = None,
) -> tuple[Array, Array]:
    """The loss, and the mean entropy of the teacher's targets (in nats), from bottleneck vectors and prototypes.

    No array of rows x prototypes is made, only rows x block. Gradients reach the student's vectors and prototypes.
    Products are taken in the student's type and summed, like everything else, in float32 or wider.
    Inside `jax.shard_map`, `axis` is the mesh axis that shares out prototypes and center.
    """
    config = _Config(instances, student_temperature, teacher_temperature, min(block, len(center_C)), axis)
    student = student_BxVxD if axis is None else jax.lax.pcast(student_BxVxD, axis, to="varying")
    return _distil(config, student, prototypes_CxD, teacher_Bx2xD, teacher_prototypes_CxD, center_C)


def loss_on_mesh(
    mesh: Mesh,
    student_BxVxD: Array,
    teacher_Bx2xD: Array,
    prototypes_CxD: Array,
    teacher_prototypes_CxD: Array,
    center_C: Array,
    *,
    instances: int,
    student_temperature: float,
    teacher_temperature: float,
    block: int,
) -> tuple[Array, Array]:
    """`loss_in_blocks` on a mesh: images are split over its axis "data", prototypes over its axis "model"."""
    _check_shares(mesh, len(student_BxVxD), len(prototypes_CxD), instances)
    axis = "model" if mesh.shape["model"] > 1 else None  # sums over one device would still be copies
    each = partial(
        loss_in_blocks, instances=instances, student_temperature=student_temperature,
        teacher_temperature=teacher_temperature, block=block, axis=axis,
    )  # fmt: skip
    if mesh.size == 1:
        return each(student_BxVxD, teacher_Bx2xD, prototypes_CxD, teacher_prototypes_CxD, center_C)

    def share(student: Array, teacher: Array, prototypes: Array, *fixed: Array) -> tuple[Array, Array]:
        prototypes = jax.lax.pcast(prototypes, "data", to="varying")  # so their gradients are summed once, at the end
        return jax.lax.pmean(each(student, teacher, prototypes, *fixed), "data")

    data, model = PartitionSpec("data"), PartitionSpec(axis)
    on_mesh = jax.shard_map(share, mesh=mesh, in_specs=(data, data, model, model, model), out_specs=PartitionSpec())
    return on_mesh(student_BxVxD, teacher_Bx2xD, prototypes_CxD, teacher_prototypes_CxD, center_C)


def next_center(center_C: Array, mean_logits_C: Array, momentum: float) -> Array:
    """The center after a batch: it follows the mean of the teacher's logits, which are the logits of its mean."""
    return momentum * center_C + (1 - momentum) * mean_logits_C


def _check_shares(mesh: Mesh, images: int, prototypes: int, instances: int) -> None:
    data, model = mesh.shape["data"], mesh.shape["model"]
    if images % (data * instances):
        raise UserError(
            f"batch {images}: {data} devices cannot share it in whole identities of {instances} images; "
            f"choose a multiple of {data * instances}"
        )
    if prototypes % model:
        raise UserError(
            f"head.prototypes {prototypes}: {model} devices (model_axis) cannot share them evenly; change one"
        )


def _others(rows_BxVxN: Array) -> Array:
    """For each of the two teacher views, the sum over all views but itself: (B, 2, N)."""
    return rows_BxVxN.sum(1, keepdims=True) - rows_BxVxN[:, :2]


def _others_transposed(rows_Bx2xN: Array, views: int) -> Array:
    """For each student view, the sum over the teacher views but itself: (B, V, N)."""
    return rows_Bx2xN.sum(1, keepdims=True) - jnp.pad(rows_Bx2xN, ((0, 0), (0, views - 2), (0, 0)))


def _mix(rows_Bx2xN: Array, instances: int) -> Array:
    """What an image is compared with: once itself, K times each other image of its identity; weights add up to 1.

    (Both are means, over B images and over B / K identities.) As a matrix it is symmetric.
    """
    by_identity = rows_Bx2xN.reshape(-1, instances, *rows_Bx2xN.shape[1:])
    mixed = instances * by_identity.sum(1, keepdims=True) - (instances - 1) * by_identity
    return mixed.reshape(rows_Bx2xN.shape) / (instances * (instances - 1) + 1)


class _Config(NamedTuple):
    """The static settings of a loss."""

    instances: int
    student_temperature: float
    teacher_temperature: float
    block: int
    axis: str | None

    def sum(self, shares: Any) -> Any:
        """Over the devices that share the prototypes."""
        return shares if self.axis is None else jax.lax.psum(shares, self.axis)

    def logsumexp(self, shares: Array) -> Array:
        """The same for log-sum-exps."""
        if self.axis is None:
            return shares
        largest = jax.lax.pmax(shares, self.axis)
        return largest + jnp.log(jax.lax.psum(jnp.exp(shares - largest), self.axis))


class _Block(NamedTuple):
    """A block of N prototypes and the logits of all rows for it."""

    start: Array
    unseen_N: Array
    """Which of them were in no block before: where blocks do not divide the prototypes the last one reaches back,
    which saves padded copies of them."""
    prototypes_NxD: Array
    student_BxVxN: Array
    teacher_Bx2xN: Array


def _product(equation: str, a: Array, b: Array, like: Array) -> Array:
    """A product in the type of `like`, summed in float32 or wider."""
    wide = jnp.promote_types(like.dtype, jnp.float32)
    return jnp.einsum(equation, a.astype(like.dtype), b.astype(like.dtype), preferred_element_type=wide)


def _block(config: _Config, number: Array, arrays: tuple[Array, ...]) -> _Block:
    """Block `number`: its logits z W' / 0.1 of the student, and (t W' - center) / 0.04 of the teacher."""
    student, prototypes, teacher, teacher_prototypes, center = arrays
    start = jnp.minimum(number * config.block, len(prototypes) - config.block)
    unseen = start + jnp.arange(config.block) >= number * config.block
    rows, teacher_rows, middle = (
        jax.lax.dynamic_slice_in_dim(x, start, config.block) for x in (prototypes, teacher_prototypes, center)
    )
    of_student = _product("bvd,nd->bvn", student, rows, student) / config.student_temperature
    of_teacher = (_product("bud,nd->bun", teacher, teacher_rows, student) - middle) / config.teacher_temperature
    return _Block(start, unseen, rows, of_student, of_teacher)


def _scan_blocks(config: _Config, step: Callable[[Any, Array], Any], start: Any, prototypes: Array) -> Any:
    """The state after a step for each block."""
    blocks = -(-len(prototypes) // config.block)
    return jax.lax.scan(lambda state, number: (step(state, number), None), start, jnp.arange(blocks))[0]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _distil(config: _Config, *arrays: Array) -> tuple[Array, Array]:
    return _forward(config, *arrays)[0]


def _forward(
    config: _Config, *arrays: Array
) -> tuple[tuple[Array, Array], tuple[tuple[Array, ...], Array, Array, Array]]:
    """Loss and entropy; for the gradient, both log-sum-exps and the mean prototype under the targets, (B, 2, D)."""

    def step(state: tuple[Array, ...], number: Array) -> tuple[Array, ...]:
        lse, lse_t, mean_logit, mean_prototype = state
        block = _block(config, number, arrays)
        unseen = block.unseen_N
        # lse(z W' / 0.1) and lse of the teacher's logits, over the blocks so far
        lse = jnp.logaddexp(lse, logsumexp(block.student_BxVxN, axis=-1, keepdims=True, where=unseen))
        new_t = jnp.logaddexp(lse_t, logsumexp(block.teacher_Bx2xN, axis=-1, keepdims=True, where=unseen))
        # q, with the sum so far as denominator: what was summed before shrinks by `decay` when more comes
        decay = jnp.exp(lse_t - new_t)
        targets = jnp.where(unseen, jnp.exp(block.teacher_Bx2xN - new_t), 0)
        # q . logits, for the entropy; q W, for the loss
        mean_logit = decay * mean_logit + (targets * block.teacher_Bx2xN).sum(-1, keepdims=True)
        mean_prototype = decay * mean_prototype + _product("bun,nd->bud", targets, block.prototypes_NxD, student)
        return lse, new_t, mean_logit, mean_prototype

    student, prototypes, *_ = arrays
    images, views, _ = student.shape
    wide = student.astype(jnp.promote_types(student.dtype, jnp.float32))
    like = wide + prototypes[0]  # never computed: its type says on which devices of a mesh values differ
    nothing = jnp.full_like(like[..., :1], -jnp.inf)
    zeros = jnp.zeros_like(like[:, :2])
    begin = nothing, nothing[:, :2], zeros[..., :1], zeros
    lse, lse_t, mean_logit, mean_prototype = _scan_blocks(config, step, begin, prototypes)
    # Over the devices that share the prototypes: what each has of q is scaled to the whole denominator.
    lse, whole_t = jnp.split(config.logsumexp(jnp.concatenate([lse, lse_t], 1)), [views], 1)
    share = jnp.exp(lse_t - whole_t)
    mean_logit = mean_logit * share
    mean_prototype = mean_prototype * share
    # (q W) . mix(others(z)) / 0.1
    agreement = (mean_prototype * _mix(_others(wide), config.instances)).sum() / config.student_temperature
    agreement, mean_logit = config.sum((agreement, mean_logit))
    loss = (_others(lse).sum() - agreement) / (2 * (views - 1) * images)
    entropy = (whole_t - mean_logit).mean()
    return (loss, entropy), (arrays, lse, whole_t, mean_prototype)


def _backward(
    config: _Config, saved: tuple[tuple[Array, ...], Array, Array, Array], cotangents: tuple[Array, Array]
) -> tuple[Array | None, ...]:
    """Gradients of student and prototypes. The shares of devices are summed where shard_map's arrays are replicated.

    With p the softmax of the student and c_v the number of teacher views that a student view answers,

        d z = c_v (p W) - mix(others'(q W)),    d W = c_v p' z - q' mix(others(z)),

    both times 1 / (2 (V - 1) B 0.1).
    """
    arrays, lse, lse_t, mean_prototype = saved
    student, prototypes, *_ = arrays
    images, views, _ = student.shape
    wide = student.astype(jnp.promote_types(student.dtype, jnp.float32))
    scale = cotangents[0] / (2 * (views - 1) * images * config.student_temperature)
    pairs = _others_transposed(jnp.ones((1, 2, 1), wide.dtype), views)  # c_v
    weighted = pairs * wide
    mixed = _mix(_others(wide), config.instances)

    def step(state: tuple[Array, Array], number: Array) -> tuple[Array, Array]:
        grad_student, grad_prototypes = state
        block = _block(config, number, arrays)
        chances = jnp.exp(block.student_BxVxN - lse)  # p
        targets = jnp.exp(block.teacher_Bx2xN - lse_t)  # q
        grad_rows = _product("bvn,bvd->nd", chances, weighted, student) - _product(
            "bun,bud->nd", targets, mixed, student
        )
        grad_rows = (scale * grad_rows).astype(grad_prototypes.dtype)
        grad_prototypes = jax.lax.dynamic_update_slice_in_dim(grad_prototypes, grad_rows, block.start, 0)
        unseen = jnp.where(block.unseen_N, chances, 0)
        return grad_student + _product("bvn,nd->bvd", unseen, block.prototypes_NxD, student), grad_prototypes

    begin = jnp.zeros_like(wide), jnp.zeros_like(prototypes)
    grad_student, grad_prototypes = _scan_blocks(config, step, begin, prototypes)
    grad_student = pairs * grad_student - _others_transposed(_mix(mean_prototype, config.instances), views)
    return (scale * grad_student).astype(student.dtype), grad_prototypes, None, None, None


_distil.defvjp(_forward, _backward)
