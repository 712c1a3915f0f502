"""Per-sample statistics to figures with intervals, and paired comparisons."""
