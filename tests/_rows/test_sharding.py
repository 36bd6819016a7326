"""Rows on eight devices: a process of its own runs `on_eight_devices.py`, for XLA counts its devices only once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).with_name("on_eight_devices.py")


def start(bits: Path, *arguments: str) -> subprocess.Popen[str]:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "JAXHINGE_BITS": str(bits)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(TESTS), *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=subprocess.STDOUT, text=True)


def test_rows_on_eight_devices_and_the_same_bits_in_every_process(tmp_path: Path) -> None:
    bits = [tmp_path / "first", tmp_path / "second"]
    runs = [start(bits[0]), start(bits[1], "-k", "bits_of_this_process")]
    for run in runs:
        output, _ = run.communicate()
        assert run.returncode == 0, output
    assert bits[0].read_text() == bits[1].read_text()
