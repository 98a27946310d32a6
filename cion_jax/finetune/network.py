"""What the networks of fine-tuning share: a backbone inside, and losses that they are trained by."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
from jax import Array

from cion_jax.config import Kernel
from cion_jax.models.network import Colour
from cion_jax.models.zoo import Backbone, Variables


class Losses(NamedTuple):
    """What a forward pass in training gives."""

    values: dict[str, Array]
    """Each loss by its name; what is trained by is their sum."""
    variables: Variables
    """With running statistics moved on."""
    features_BxD: Array
    """What a memory follows."""


@dataclass(frozen=True)
class Finetuned:
    """A network without its weights."""

    method: ClassVar[str]
    """The name of the way it is trained."""
    own_order: ClassVar[str]
    """What PyTorch registers around the backbone, in that order."""
    backbone: Backbone
    """The pre-trained network, whole."""

    @property
    def name(self) -> str:
        """That of the backbone."""
        return self.backbone.name

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images it is trained with."""
        return self.backbone.image_size

    @property
    def mean(self) -> Colour:
        """What is taken off the channels of its images, whose values are 0 to 1;"""
        return self.backbone.mean

    @property
    def std(self) -> Colour:
        """and what they are then divided by."""
        return self.backbone.std

    @property
    def resize(self) -> Kernel:
        """How images of another size are brought to its own."""
        return self.backbone.resize

    @property
    def order(self) -> tuple[str, ...]:
        """The names of layers and parameters in the order in which PyTorch registers them."""
        return *self.own_order.split(), *self.backbone.order

    def shapes(self) -> Variables:
        """Shapes and types of its variables, without computing them."""
        return jax.eval_shape(self.begin, jax.random.key(0), self.backbone.shapes())

    def width(self, image_size: tuple[int, int]) -> int:
        """Numbers in a feature; a size of images with which the network does not work is refused."""
        return self.backbone.width(image_size)

    def begin(self, key: Array, body: Variables) -> Variables:
        """Variables with the weights of a pre-trained backbone; all else is fresh."""
        raise NotImplementedError

    def apply(self, variables: Variables, images: Array) -> Any:
        """Features (N, width) of images (N, H, W, 3), as one searches with them."""
        raise NotImplementedError

    def losses(
        self, variables: Variables, images: Array, labels_B: Array, *, memory_CxD: Any, key: Array, frozen: bool
    ) -> Losses:
        """What is trained by, of images (B, H, W, 3) and the numbers of their identities.

        Args:
            variables: Of the network.
            images: As augmentation makes them.
            labels_B: From 0 on.
            memory_CxD: A row for each cluster, or () where a method has no memory.
            key: For drop path.
            frozen: Whether what came with the backbone stands still, where a method has such a start.
        """
        raise NotImplementedError
