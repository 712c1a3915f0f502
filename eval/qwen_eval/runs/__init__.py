"""One run from its questions to its stored rows, and how stored runs are found again."""
