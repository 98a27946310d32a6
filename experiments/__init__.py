"""Settings, which `cion pretrain` looks up by name and `--settings FILE` reads from a file, and benchmarks."""
