"""Speed and memory of the engine against other ways to the same answers. Run by `python tools/bench`."""
