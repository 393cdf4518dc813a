"""One run trained by several processes, each with its share of every batch."""
