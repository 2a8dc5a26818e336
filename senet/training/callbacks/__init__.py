"""Lightning callbacks of a run: what is looked at, saved and shown while it trains."""
