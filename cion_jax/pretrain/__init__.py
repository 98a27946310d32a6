"""What a step of pre-training is: loss, schedules, optimizer, state, step. Pure functions: no file, no host."""
