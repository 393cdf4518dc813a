"""The `gclip` command; one file a group of commands, and none imports torch before it must."""

from gclip.cli.command import main as main
