"""Measure, ask, clip: from gradients to clipped gradients, and what is remembered of a step."""
