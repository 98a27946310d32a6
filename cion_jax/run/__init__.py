"""What keeps any training going: plan, trainer, loader, checkpoints, journal, relabelling, scores, forecast."""
