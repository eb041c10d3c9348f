"""What a training run leaves behind: recording it, storing it, reading it."""
