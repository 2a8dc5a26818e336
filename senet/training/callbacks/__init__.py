"""Lightning callbacks of a run, a file each."""
