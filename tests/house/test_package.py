"""What a wheel carries: everything that the program reads besides its own text."""

from __future__ import annotations

import subprocess
import sys
import zipfile

from package_source import PACKAGE, ROOT


def test_the_wheel_carries_every_file_of_the_package(tmp_path):
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    files = [path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    expected = {f"framewake/{path.relative_to(PACKAGE).as_posix()}" for path in files}
    assert "framewake/nn/frequencies.npy" in expected
    assert not expected - inside, f"not in the wheel: {sorted(expected - inside)}"
    assert any(name.endswith("licenses/LICENSE") for name in inside)
    assert not [name for name in inside if name.startswith(("tests/", "scripts/"))]
