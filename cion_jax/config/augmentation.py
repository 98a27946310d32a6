"""What is random about the images that a network sees."""

from dataclasses import dataclass
from typing import Literal

from cion_jax.config.records import MEAN, STD


@dataclass(frozen=True)
class Crops:
    """The views of an image that student and teacher see."""

    global_size: tuple[int, int] = (256, 128)
    """Height and width of the two global crops, which teacher and student see."""
    local_size: tuple[int, int] = (128, 64)
    """Height and width of the local crops, which the student alone sees."""
    local_crops: int = 8
    """Local crops of each image."""
    global_scale: tuple[float, float] = (0.8, 1.0)
    """Smallest and largest share of the image's area in a global crop."""
    local_scale: tuple[float, float] = (0.05, 0.8)
    """The same for a local crop."""
    aspect: tuple[float, float] = (0.4, 0.6)
    """Smallest and largest width / height of the cut-out, before it is resized."""
    flip: float = 0.5
    """Probability of a left-right flip."""
    jitter: float = 0.8
    """Probability that colours are jittered, in an order of its own for each crop."""
    jitter_strength: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    """Largest change of brightness, contrast, saturation (as a factor 1 +- x) and hue (as a turn of the wheel)."""
    grey: float = 0.2
    """Probability that colours are dropped."""
    blur: tuple[float, float, float] = (1.0, 0.1, 0.5)
    """Probability of a Gaussian blur: first global crop, second global crop, local crops."""
    blur_radius: tuple[float, float] = (0.1, 2.0)
    """Smallest and largest radius of the blur, in pixels of the crop."""
    solarize: float = 0.2
    """Probability that the second global crop is solarized (values of 128 and above inverted)."""


@dataclass(frozen=True)
class Augmentation:
    """What fine-tuning makes of an image."""

    size: tuple[int, int] = (256, 128)
    """Height and width of what the network sees, in training and in testing; other images are resized."""
    flip: float = 0.5
    """Probability of a left-right flip."""
    pad: int = 10
    """Width of a black frame, of which a crop at a random place is taken; at 0 the image stays where it is."""
    erase: float = 0.5
    """Probability that a rectangle is erased."""
    erase_area: tuple[float, float] = (0.02, 1 / 3)
    """Smallest and largest share of the image's area in it."""
    erase_aspect: tuple[float, float] = (0.3, 1 / 0.3)
    """Its smallest and largest height / width."""
    erase_spread: Literal["uniform", "log-uniform"] = "log-uniform"
    """How height / width is distributed in between."""
    erase_tries: int = 10
    """Rectangles to draw until one is lower and narrower than the image; without one nothing is erased."""
    erase_fill: tuple[float, float, float] | Literal["black", "noise"] = "noise"
    """What takes its place: black, standard normal noise, or a colour; noise and colour as the network sees them."""
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Taken off each channel's values, which lie between 0 and 1."""
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """What they are then divided by."""


#: The augmentations of published fine-tuning.
BNNECK_AUGMENTATION = Augmentation()

MGN_AUGMENTATION = Augmentation(
    size=(384, 128),
    erase_area=(0.02, 0.4),
    erase_spread="uniform",
    erase_tries=100,
    erase_fill="black",
    mean=MEAN,
    std=STD,
)

CLUSTER_CONTRAST_AUGMENTATION = Augmentation(
    erase_area=(0.02, 0.4),
    erase_spread="uniform",
    erase_tries=100,
    erase_fill=MEAN,  # though the network sees values of another scale
)
