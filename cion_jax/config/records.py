"""How records are written and read, and what networks are fed."""

from dataclasses import dataclass
from typing import Literal

#: Networks are fed values 0 to 1, less the mean of each channel, divided by its standard deviation: those of ImageNet.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: How images of one size are made images of another, antialiased.
Kernel = Literal["bicubic", "bilinear"]


@dataclass(frozen=True)
class Writing:
    """How a dataset is written."""

    images_per_shard: int = 8192
    """Images in one shard file; a pod wants at least one shard per reading host."""
    workers: int = 0
    """Processes that write shards at the same time; 0 means one per core."""
    skip_damaged: bool = False
    """Leave out (and count) images that do not decode, instead of stopping at the first."""
    beam_runner: str = ""
    """Do the work as an Apache Beam pipeline, instead of in processes here: DirectRunner, DataflowRunner, FlinkRunner
    and others. Its workers must see source and OUT, in a store (gs://, s3://, ...) or on a disk that all share. Needs
    `pip install 'cion-jax[beam]'`."""
    beam_options: str = ""
    """Options of Beam and of that runner in one text, as in
    --beam-options='--project=MINE --region=europe-west4 --temp_location=gs://MINE/tmp'."""


@dataclass(frozen=True)
class Reading:
    """How images are decoded on the host."""

    height: int = 256
    """Rows of every decoded image; other sizes are resized on the host."""
    width: int = 128
    """Columns of every decoded image."""
    resize: Kernel = "bilinear"
    """How."""
    threads: int = 0
    """Threads that decode, each a batch of its own; 0 means one per core."""
    skip_damaged: bool = False
    """Replace a damaged record by another image of its identity and count it, instead of stopping."""
