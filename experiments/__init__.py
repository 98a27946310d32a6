"""One short file per experiment: settings that `cion ... --settings FILE` starts from, and benchmarks."""
