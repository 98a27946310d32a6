"""People's own settings, comparisons and benchmarks. Nothing imports this package.

`crowded_world.py` is an example of settings of one's own, for `--settings FILE`. `denoising.py` compares denoising with
other ways to cluster. `benchmarks/` holds measurements: each is a command, `python -m experiments.benchmarks.NAME`.
"""
