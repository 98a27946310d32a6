"""What a step of fine-tuning is: losses, memory, schedules, optimizers. Pure functions: no file, no host."""
