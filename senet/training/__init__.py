"""Training and evaluation runs: configuration, the Lightning module, the run directory, the processes."""
