"""Damaged images while training: a run stops at the first, or passes over all of them where its settings say so."""

from typing import SupportsIndex

import numpy as np

from cion_jax.config import Kernel, Training
from cion_jax.data.records import DamagedRecordError
from cion_jax.evaluate.embed import Images, embed_all
from cion_jax.hosts import all_gather
from cion_jax.models.network import Network
from cion_jax.models.zoo import Variables
from cion_jax.terminal import ProgressBar


class Passing:
    """Images to embed, of which damaged ones are blank and noted."""

    def __init__(self, images: Images, skip_damaged: bool):
        """`skip_damaged` is the setting; without it a damaged image is refused."""
        self._images = images
        self._skip = skip_damaged
        self._damaged: list[int] = []

    def __len__(self) -> int:
        return len(self._images)

    def where(self, number: SupportsIndex) -> str:
        """The place of an image, for messages."""
        return self._images.where(number)

    def pixels_into(self, out: np.ndarray, number: SupportsIndex, kernel: Kernel = "bilinear") -> None:
        """Write an image into an array, resized to its height and width."""
        try:
            self._images.pixels_into(out, number, kernel)
        except DamagedRecordError:
            if not self._skip:
                raise
            out[:] = 0
            self._damaged.append(int(number))

    def damaged(self) -> np.ndarray:
        """The numbers of those that any host has noted."""
        return all_gather(np.array(self._damaged, np.int64))

    def whole(self) -> np.ndarray:
        """The numbers of all others, in order."""
        return np.setdiff1d(np.arange(len(self)), self.damaged())


def embed_passing(
    settings: Training, network: Network, variables: Variables, images: Images, bar: ProgressBar, title: str
) -> tuple[np.ndarray, np.ndarray]:
    """The features of all images, and the numbers of those that are whole; `title` is that of the progress bar."""
    passing = Passing(images, settings.skip_damaged)
    with bar(title, len(images)) as progress:
        features = embed_all(
            network,
            variables,
            passing,
            image_size=network.image_size,
            precision=settings.precision,
            progress=progress,
        )
    return features, passing.whole()
