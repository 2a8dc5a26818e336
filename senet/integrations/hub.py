"""The Hugging Face Hub."""

from pathlib import Path
from typing import Any

import huggingface_hub

from senet.errors import UserError


def check(name: str) -> None:
    """Refuse what cannot be pushed, before anything is computed.

    Raises:
        UserError: if ``name`` is not "OWNER/NAME", or this machine has no token of the Hub.
    """
    owner, _, repository = name.partition("/")
    if not owner or not repository or "/" in repository:
        raise UserError(f"--push {name}: give OWNER/NAME")
    if not huggingface_hub.get_token():
        raise UserError(f"--push {name}: there is no token of the Hub here: hf auth login, or set HF_TOKEN")


def push(folder: Path, name: str) -> str:
    """Upload a folder to the repository ``name``, made private if it is not there; return its address.

    Raises:
        UserError: if the Hub refuses or cannot be reached.
    """
    api: Any = huggingface_hub.HfApi()
    try:
        api.create_repo(name, private=True, exist_ok=True)
        return str(api.upload_folder(repo_id=name, folder_path=folder))
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"--push {name}: the Hub refused or was not reached ({reason}); what was written stays in {folder}"
        ) from error
