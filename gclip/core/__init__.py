"""What the author of a strategy touches: strategies, their fields, spelling and registry, and memories."""
