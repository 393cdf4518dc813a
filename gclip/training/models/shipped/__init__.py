"""The models that ship with gclip, a file each."""
