"""Who is who in a video, beside its ground truth: tracklets as the tracker gave them, and people as `cion people` does.

python -m experiments.benchmarks.people VIDEO GT.txt

The ground truth is in MOTChallenge's format, with frames counted from 1. An image shows the true person whose box it
overlaps by an IoU of at least 0.5, each true box in a frame one image at most; others show nobody, and are wrong in any
pair. Precision, recall and F1 are those of pairs of images: labelled as one person, and truly one.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
from tyro.conf import Positional

from cion_jax.config import Tracking
from cion_jax.data.boxes import joined_tracklets
from cion_jax.data.labels import read_labelling
from cion_jax.data.records import Records
from cion_jax.errors import UserError
from cion_jax.evaluate.clustering_metrics import agreement
from cion_jax.people import Wanted, do_steps, on_cpu, run_command, steps
from experiments.benchmarks.command import command
from experiments.benchmarks.timing import environment
from experiments.benchmarks.video import people_shown, read_found, read_truth


def main(
    video: Positional[Path], truth: Positional[Path], tracking: Tracking = Tracking(), out: Path | None = None
) -> None:
    """Find the people in a video, and compare them with the truth.

    Args:
        video: A video file.
        truth: Its ground truth in MOTChallenge's format.
        out: Keep what was made in this folder, and go on with what is there.
    """
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        out = out or Path(folder)
        out.mkdir(exist_ok=True)
        if do_steps(out, steps(Wanted((video,), out, tracking), on_cpu), run_command):
            raise UserError(f"{out}: not all steps came to their end; see above")
        seconds = time.perf_counter() - began
        records = Records(out / "data")
        shown = people_shown(read_truth(truth), read_found(out / "data"))
        people = read_labelling(out / "labels.npz", records.card.fingerprint, len(records))
        labels = {
            "raw tracklets": np.array(records.index["tracklet"], np.int64),
            "joined where followed twice": joined_tracklets(records).astype(np.int64),
            "people": people,
        }
    print()
    print("| | precision | recall | F1 | people | images |")
    print("|---|---|---|---|---|---|")
    for name, each in labels.items():
        scores = agreement(each, shown)
        counts = f"{len(np.unique(each[each >= 0])):,} | {np.count_nonzero(each >= 0):,}"
        print(f"| {name} | {scores.precision:.3f} | {scores.recall:.3f} | {scores.f1:.3f} | {counts} |")
    true = shown[shown >= 0]
    print(f"\n{len(true):,} of {len(shown):,} images show one of {len(np.unique(true))} true people.")
    print(f"What was left to do took {seconds / 60:.1f} min. {environment('jax', 'numpy')}")


if __name__ == "__main__":
    command(main)
