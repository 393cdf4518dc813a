"""The per-example side: each training example's own gradient, clipped before their mean is taken."""
