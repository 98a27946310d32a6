"""What turns images into features: a backbone, or what fine-tuning has built on one."""

from collections.abc import Sequence
from typing import Any, Protocol

from cion_jax.config import Kernel
from cion_jax.models.zoo import Variables

Colour = tuple[float, float, float]


class Network(Protocol):
    """A network without its weights, as whoever embeds images sees it. It is a value: equal ones are one program."""

    def __hash__(self) -> int: ...

    @property
    def name(self) -> str:
        """That of the backbone."""
        ...

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images it is made for."""
        ...

    @property
    def mean(self) -> Colour:
        """What is taken off the channels of its images, whose values are 0 to 1;"""
        ...

    @property
    def std(self) -> Colour:
        """and what they are then divided by."""
        ...

    @property
    def resize(self) -> Kernel:
        """How images of another size are brought to its own."""
        ...

    @property
    def order(self) -> Sequence[str]:
        """The names of layers and parameters in the order in which PyTorch registers them."""
        ...

    def shapes(self) -> Variables:
        """Shapes and types of its variables, without computing them."""
        ...

    def width(self, image_size: tuple[int, int]) -> int:
        """Numbers in a feature; a size of images with which the network does not work is refused."""
        ...

    def apply(self, variables: Variables, images: Any) -> Any:
        """Features (N, width) of images (N, H, W, 3)."""
        ...
