"""Modules of the user's own, by the names in SENET_PLUGINS."""

from pathlib import Path

import pytest

from senet import UserError
from senet.plugins import import_users_own


@pytest.mark.parametrize("name", ["nowhere", "nowhere.blocks", "own.nowhere", "own.py"])
def test_a_module_that_there_is_not_is_one_line(name: str, tmp_path: Path, monkeypatch):
    (tmp_path / "own.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SENET_PLUGINS", name)
    with pytest.raises(UserError, match=f"SENET_PLUGINS={name}: there is no such module"):
        import_users_own.__wrapped__()


def test_what_a_users_module_lacks_is_told_as_it_is(tmp_path: Path, monkeypatch):
    (tmp_path / "other.py").write_text("import nowhere_to_be_found")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SENET_PLUGINS", "other")
    with pytest.raises(ModuleNotFoundError, match="nowhere_to_be_found"):
        import_users_own.__wrapped__()
