"""Every Python block of the README runs, top to bottom, and prints what its comments say."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^<!-- (\w+) -->\n```bash\n(.*?)\n```", README, flags=re.MULTILINE | re.DOTALL)


def test_there_is_something_to_run():
    assert BLOCKS


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_block(block, capsys):
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
    printed = capsys.readouterr().out.splitlines()
    # `print(...)  # text` promises that text.
    promised = re.findall(r"^\s*print\(.*\)  # (.*)$", block, flags=re.MULTILINE)
    assert printed[: len(promised)] == promised


def test_two_commands_set_it_up_each_on_one_line():
    assert [name for name, _ in COMMANDS] == ["quickstart", "tests"]
    for _, command in COMMANDS:
        assert "\n" not in command
        assert command.startswith("python3.11 -m venv ")
    assert README.count("```bash") == 2
