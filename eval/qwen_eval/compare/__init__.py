"""Two runs item by item: ours against ours, ours against another harness's samples."""
