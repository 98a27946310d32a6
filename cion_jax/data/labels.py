"""The five numbers that say where an image comes from and whom it shows."""

import numpy as np

#: One row per image; -1 means unknown. Evaluation sets keep their conventions: identity -1 is junk, 0 a distractor.
LABELS = np.dtype([(name, "<i4") for name in ("video", "tracklet", "frame", "camera", "identity")])
