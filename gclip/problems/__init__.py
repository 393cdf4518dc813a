"""The problems that come with gclip, one file each: what is minimised, and how it is measured.

`gclip list --problems` shows them; ``--task NAME`` chooses one.
"""
