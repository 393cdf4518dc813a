"""Single examples: each training example's own gradient, clipped before their mean is taken."""
