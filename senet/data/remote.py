"""A folder at an address, such as s3://bucket/pack: each file is fetched when it is first asked for, then kept.

What lies at an address is taken never to change: a file that is kept is not compared with the address again.
"""

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

from senet.data.cache import once, user_cache
from senet.errors import UserError

Check = Callable[[Path], object]
"""Raises UserError for a file that is not what it should be."""


def is_address(root: str) -> bool:
    """Whether a folder is named by protocol and address, as fsspec names it, and not by a path."""
    return "://" in root


class RemoteFolder:
    """Files at an address, fetched one by one.

    Args:
        address: PROTOCOL://..., anything fsspec knows.
        cache: folder for the copies; by default one of the user's cache for each address.
    """

    def __init__(self, address: str, cache: str | None = None) -> None:
        self.address = address.rstrip("/")
        key = hashlib.blake2b(self.address.encode(), digest_size=12).hexdigest()
        self.cache = (Path(cache) if cache else user_cache() / "packs") / key

    def __str__(self) -> str:
        return self.address

    def file(self, name: str, check: Check) -> Path:
        """Return the local copy of a file; a fetched file that ``check`` refuses is not kept.

        Raises:
            FileNotFoundError: if there is no such file at the address.
            UserError: if it cannot be fetched or kept, or ``check`` refuses it.
        """
        try:
            return once(self.cache / name, partial(self._fetch, name, check))
        except (FileNotFoundError, UserError):
            raise
        except OSError as error:
            raise UserError(f"{self.cache} cannot keep {self}/{name} ({error}): set data.cache") from error

    def _fetch(self, name: str, check: Check, copy: Path) -> None:
        import fsspec

        try:
            # Opened anew for every file: an open file system does not survive a fork.
            files, path = fsspec.core.url_to_fs(f"{self}/{name}")
            files.get_file(path, str(copy))
        except FileNotFoundError:
            raise
        except ImportError as error:
            raise UserError(f"data.root={self} needs another package: {error}") from error
        except Exception as error:
            # Each protocol's library has errors of its own.
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise UserError(f"{self}/{name} cannot be fetched ({reason})") from error
        check(copy)
