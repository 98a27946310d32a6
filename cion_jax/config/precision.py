"""What networks compute in."""

from typing import Literal

#: float32 is multiplied as such. tensorfloat32 is float32 too, but accelerators may round what they multiply: to 10
#: bits of mantissa on NVIDIA GPUs from Ampere on; TPUs make three products in bfloat16 of one. CPUs know no difference.
Precision = Literal["bfloat16", "tensorfloat32", "float32"]
