"""What ``torch.save`` wrote, read without running code and without unpacking more than is there.

``weights_only=True`` makes tensors, numbers, text and containers, and nothing else. What another
hand has made may still be no such file, or a small one that says it is huge.
"""

from __future__ import annotations

import io
import zipfile
from typing import Any

import torch

from gclip.errors import UsageError

_SLACK = 1 << 16  # bytes that the directory's own numbers may be off by


def load_tensors(content: bytes, what: str) -> Any:
    """What the bytes of a file hold, on the CPU.

    Args:
        content: of the file.
        what: it is, for the sentence: "the checkpoint run.ckpt".

    Raises:
        UsageError: it holds something else than tensors, numbers and text, or is no such file.
    """
    refused = f"{what} is refused: "
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            size = sum(member.file_size for member in packed.infolist())
    # Of a directory that was made up: a name that is no text (ValueError), a version of the format
    # that Python does not know (NotImplementedError).
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise UsageError(f"{refused}it is not a file of torch.save") from error
    if size > len(content) + _SLACK:  # torch packs nothing
        raise UsageError(
            f"{refused}its {len(content):,} bytes would unpack to {size:,}; name another file"
        )
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # of the unpickler, of zip files, of tensors that cannot be
        raise UsageError(
            f"{refused}it holds something else than tensors, numbers and text, which could run "
            "code; nothing of it was run; name another file"
        ) from error
