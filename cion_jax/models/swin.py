"""swin: to be written."""

import flax.linen as nn

ORDER = ""
VARIANTS: dict[str, nn.Module] = {}
