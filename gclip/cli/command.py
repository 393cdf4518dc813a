"""The `gclip` command, and how it says that something went wrong.

Nothing here or in the command modules imports torch before a command needs it, so that
``gclip --help`` answers at once.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import typer

from gclip.cli.interrupts import AGAIN, INTERRUPTED, signals, tell
from gclip.cli.root import app_for as app_for
from gclip.cli.typed import typed
from gclip.core.launcher import speaks
from gclip.core.numbers import shown
from gclip.results.reading import reading_once
from gclip.text.streams import make_printable, printable

# Newer typers carry their own copy of click: found through the one class that both export.
_ParseError: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")

_HERE = Path(__file__).parent
_LINES = "\n\t"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the program's own) and return its exit code.

    0 fine · 1 a run or gclip itself failed · 2 wrong input · 130 Ctrl-C · 143 SIGTERM.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    make_printable()
    with signals(whole_program=argv is None), warnings.catch_warnings():
        warnings.showwarning = _show_warning
        return _flush(_run(arguments))


def _run(arguments: list[str]) -> int:
    try:
        with reading_once(), typed(arguments):
            code: Any = app_for(arguments)(args=arguments, prog_name="gclip", standalone_mode=False)
    except KeyboardInterrupt as error:
        return tell(error, AGAIN)
    except BrokenPipeError:
        return 1
    except OSError as error:
        if error.filename is not None and error.errno in _UNUSABLE:
            if "--traceback" in arguments:
                traceback.print_exc()
            named = f"{shown(error.filename)} cannot be used: {error.strerror}; name another path"
            return _complain(named, 2)
        if error.filename is not None or error.errno not in _UNWRITABLE:
            return _unexpected(error, arguments)
        return _complain(_not_written(error), 1)
    except SystemExit as error:  # none of our commands ends like that
        if isinstance(error.__context__, OSError):  # Typer, of a reader that has gone
            return 1
        if "--traceback" in arguments:
            traceback.print_exc()
        ended = f"SystemExit: {error}" if str(error) else "SystemExit"
        code = error.code if isinstance(error.code, int) else 1
        return _complain(f"a plugin or a library ended the program ({_one_line(ended)})", code or 1)
    except _ParseError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            return 2  # a group without a command: its help was printed already
        if not speaks():  # torchrun gives all processes the same arguments
            return 2
        said = _one_line(error.format_message()) + _given(error, arguments)
        return _complain(f"{said}; see --help", 2)
    except typer.Abort:
        return INTERRUPTED
    except ValueError as error:
        if "--traceback" in arguments:
            traceback.print_exc()
        return _complain(_one_line(str(error)), 2)
    except Exception as error:
        return _unexpected(error, arguments)
    return code if isinstance(code, int) else 0


_UNUSABLE = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EROFS)
"""What is wrong with a path itself."""
_UNWRITABLE = (errno.ENOSPC, errno.EIO, errno.EBADF, errno.EDQUOT)


def _given(error: Any, arguments: Sequence[str]) -> str:
    """``, but got 'x'``: the value that an option refuses, where its message leaves that out."""
    options = getattr(getattr(error, "param", None), "opts", ())
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name not in options:
            continue
        given = value if equals else "".join(arguments[place + 1 : place + 2])
        if given and given not in error.format_message():
            return f", but got {shown(given)}"
    return ""


def _not_written(error: OSError) -> str:
    return (
        f"the answer cannot be written to standard output ({error.strerror}); what was computed is "
        "kept in the store, and the same command prints it"
    )


def _unexpected(error: Exception, arguments: list[str]) -> int:
    if "--traceback" in arguments:
        traceback.print_exc()
        return 1
    again = " ".join(["gclip --traceback", *arguments])
    what = _one_line(f"{type(error).__name__}: {error}")
    return _complain(f"unexpected {what}\nFor the whole story: {again}", 1)


def _complain(message: str, code: int) -> int:
    try:
        print(f"gclip: error: {printable(message, keep=_LINES)}", file=sys.stderr)
    except (OSError, ValueError):
        return _flush(code)
    return code


def _one_line(text: str) -> str:
    return " ".join(text.split()).rstrip(".") or "no message"


def _flush(code: int) -> int:
    """Write out what is buffered; a reader that has gone (``| head``) is no error of ours."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in _UNWRITABLE and not code:
                _complain(_not_written(error), 1)
            # Or Python would complain once more when it closes the stream at exit.
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            code = code or 1
    return code


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Our own warnings are sentences for the user; others are shown with their place."""
    ours = category.__module__.startswith("gclip") or Path(filename).parent == _HERE
    if ours and issubclass(category, UserWarning):
        text = f"gclip: warning: {message}"
    else:
        text = warnings.formatwarning(message, category, filename, lineno, line).rstrip()
    print(printable(text, keep=_LINES), file=file or sys.stderr)
