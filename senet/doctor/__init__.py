"""Faults done to small runs for real, to see that nothing is lost."""
