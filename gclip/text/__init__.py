"""Text for terminals of any width."""
