"""How often intervals hold the true value. Run by `python tools/simulate_intervals`."""
