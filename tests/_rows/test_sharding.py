"""Rows on eight devices: a process of its own runs `on_eight_devices.py`, for XLA counts its devices only once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).with_name("on_eight_devices.py")


def run(bits: Path, *arguments: str) -> None:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "JAXHINGE_BITS": str(bits)}
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", ""]
    command = [sys.executable, "-m", "pytest", *options, str(TESTS), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_rows_on_eight_devices_and_the_same_bits_in_every_process(tmp_path: Path) -> None:
    bits = [tmp_path / "first", tmp_path / "second"]
    # One after the other, so that the second finds what the first has compiled.
    run(bits[0])
    run(bits[1], "-k", "bits_of_this_process")
    assert bits[0].read_text() == bits[1].read_text()
