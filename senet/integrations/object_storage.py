"""A folder at an address, such as s3://bucket/pack: each file is fetched when it is first asked for, then kept.

What lies at an address is taken never to change: a file that is kept is not compared with the address again.
"""

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import fsspec

from senet.data.files.packed import Check, Folder
from senet.errors import UserError
from senet.files import once, user_cache

SILENCE, SLOWEST = 60.0, 50_000
"""Seconds without a byte (over HTTP), and bytes a second over a whole file, at which a download is given up."""


class RemoteFolder(Folder):
    """Files at an address, fetched one by one.

    Args:
        address: PROTOCOL://..., anything fsspec knows.
        cache: folder for the copies; by default one of the user's cache for each address.
    """

    def __init__(self, address: str, cache: str | Path | None = None) -> None:
        self.address = address.rstrip("/")
        key = hashlib.blake2b(self.address.encode(), digest_size=12).hexdigest()
        self.cache = (Path(cache) if cache else user_cache() / "packs") / key

    def __str__(self) -> str:
        return self.address

    def file(self, name: str, check: Check, size: int) -> Path:
        """Return the local copy of a file; a fetched file that ``check`` refuses is not kept.

        Args:
            name: of the file.
            check: of its copy.
            size: bytes that it may have.

        Raises:
            FileNotFoundError: if there is no such file at the address.
            UserError: if it cannot be fetched or kept, is larger, stalls, or ``check`` refuses it.
        """
        try:
            return once(self.cache / name, partial(self._fetch, name, check, size))
        except (FileNotFoundError, UserError):
            raise
        except OSError as error:
            raise UserError(f"{self.cache} cannot keep {self}/{name} ({error}): set data.cache") from error

    def _fetch(self, name: str, check: Check, size: int, copy: Path) -> None:
        try:
            # Opened anew for every file: an open file system does not survive a fork.
            files, path = fsspec.core.url_to_fs(f"{self}/{name}", **_patience(self.address))
            bound = {"timeout": SILENCE + size / SLOWEST} if files.async_impl else {}
            files.get_file(path, str(copy), callback=_AtMost(size), **bound)
        except (FileNotFoundError, UserError):
            raise
        except ImportError as error:
            raise UserError(f"data.root={self} needs another package: {error}") from error
        except Exception as error:
            # Each protocol's library has errors of its own.
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise UserError(f"{self}/{name} cannot be fetched ({reason})") from error
        check(copy)


class _AtMost(fsspec.Callback):  # type: ignore[misc]
    """Ends the fetching of a file that is larger than it may be."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.left = size

    def relative_update(self, inc: int = 1) -> None:
        """Count the bytes that have come."""
        self.left -= inc
        if self.left < 0:
            raise ValueError("it is larger than the pack says")


def _patience(address: str) -> dict[str, Any]:
    """Return the options that end a silent connection; the libraries of other protocols do it by themselves."""
    if not address.startswith(("http:", "https:")):
        return {}
    from aiohttp import ClientTimeout

    # By default aiohttp ends any answer that takes more than five minutes, also a large one that comes steadily.
    return {"client_kwargs": {"timeout": ClientTimeout(total=None, sock_connect=SILENCE, sock_read=SILENCE)}}
