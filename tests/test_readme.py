"""Every Python block of the README, and of the page for newcomers, runs and prints what its comments say."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = {
    f"{page}-{number}": block
    for page in ("README.md", "COMING_FROM.md")
    for number, block in enumerate(
        re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    )
}
COMMANDS = re.findall(r"^<!-- (\w+) -->\n```bash\n(.*?)\n```", README, flags=re.MULTILINE | re.DOTALL)


def test_there_is_something_to_run():
    assert len(BLOCKS) > 5


@pytest.mark.parametrize("name", BLOCKS)
def test_block(name, capsys):
    block = BLOCKS[name]
    exec(compile(block, name, "exec"), {"__name__": "readme"})
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
