"""Identity-guided self-distillation: loss, schedules, optimizer, step, loop, checkpoints, journal."""
