"""A network added as docs/howto/network.md says passes the tests of the zoo, and no test is touched."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLUGIN = """
import senet.models
from senet.models import families

senet.models.__path__.append({folder!r})
families.FAMILIES = (*families.FAMILIES, eval({entry!r}, vars(families)))
"""


@pytest.mark.slow
def test_a_network_added_as_the_page_says_passes_the_tests_of_the_zoo(tmp_path: Path) -> None:
    paragraph = (ROOT / "docs/howto/network.md").read_text().partition("To add a network")[2]
    builder, entry = re.findall(r"```python\n(.*?)```", paragraph, re.DOTALL)[:2]
    (tmp_path / "toynet.py").write_text(builder)
    (tmp_path / "add_toynet.py").write_text(PLUGIN.format(folder=str(tmp_path), entry=entry))
    tests = ["tests/models/test_zoo.py", "tests/integrations/test_timm_registry.py"]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-n0", "-q", "-p", "add_toynet", "-k", "toynet or whole", *tests],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert result.returncode == 0, result.stdout
    passed = re.search(r"(\d+) passed", result.stdout)
    assert passed is not None
    assert int(passed.group(1)) >= 15
