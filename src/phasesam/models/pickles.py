"""What a pickle asks for, told from its opcodes alone: nothing is imported and nothing runs.

PyTorch's restricted unpickler refuses what it does not know, but not always with the reason.
"""

from __future__ import annotations

import contextlib
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

# An old checkpoint is a row of pickles: magic number, protocol, system, content, storages.
_PICKLES_IN_A_ROW = 5
_MODULES_OF_WEIGHTS = (
    "collections",
    "torch",
    "torch._tensor",
    "torch._utils",
    "torch.nn.parameter",
    "torch.storage",
)


def protocol_of(path: Path) -> int | None:
    """Read the protocol of the pickle in a checkpoint; None if it does not say.

    Parameters
    ----------
    path : Path
        A file that begins with a pickle, or an archive of ``torch.save``.
    """
    head = b""
    # An archive may lack checksums, which torch does not mind.
    with _opened(path) as file, contextlib.suppress(OSError, zipfile.BadZipFile):
        head = b"" if file is None else file.read(2)
    return head[1] if len(head) == 2 and head[0] == 0x80 else None


def foreign_import(path: Path) -> str | None:
    """Find the first thing that a pickle imports and that tensors do not need.

    Parameters
    ----------
    path : Path
        As for `protocol_of`.

    Returns
    -------
    str or None
        Its full name, such as ``"posix.system"``; None if there is none before the pickle
        ends or makes no sense.
    """
    with _opened(path) as file:
        if file is None:
            return None
        # pickletools raises ValueError in most and other errors in a few kinds of garbage.
        with contextlib.suppress(Exception):
            for _ in range(_PICKLES_IN_A_ROW):
                for name in _imports(file):
                    if name.rpartition(".")[0] not in _MODULES_OF_WEIGHTS:
                        return name
    return None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes] | None]:
    """Open the pickle, which in an archive is the file ``NAME/data.pkl``."""
    with contextlib.ExitStack() as stack:
        file: IO[bytes] | None = None
        with contextlib.suppress(OSError, zipfile.BadZipFile, RuntimeError):
            file = stack.enter_context(path.open("rb"))
            if file.read(2) == b"PK":
                archive = stack.enter_context(zipfile.ZipFile(path))
                names = [n for n in archive.namelist() if n.rpartition("/")[2] == "data.pkl"]
                file = stack.enter_context(archive.open(names[0])) if names else None
            else:
                file.seek(0)
        yield file


def _imports(file: IO[bytes]) -> Iterator[str]:
    """Names of everything that one pickle imports, in order."""
    texts: list[str] = []
    memo: dict[int, str | None] = {}
    pushed: str | None = None
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name in ("GLOBAL", "INST"):
            yield str(argument).replace(" ", ".", 1)
        elif opcode.name == "STACK_GLOBAL":
            yield ".".join(texts[-2:])
        elif opcode.name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
            memo[len(memo) if argument is None else argument] = pushed
            continue
        elif opcode.name in ("GET", "BINGET", "LONG_BINGET"):
            argument = memo.get(int(argument or 0))
        pushed = argument if isinstance(argument, str) else None
        if pushed is not None:
            texts.append(pushed)
