"""What the author of a strategy touches: fields, memories, spelling, the registry."""
