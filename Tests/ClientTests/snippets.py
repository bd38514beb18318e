"""The snippets of Docs/clients.md. Each begins with ```python GROUP, and its comments after `print(…)` are what it prints."""

import pathlib
import re
import subprocess
import sys

from harness import TESTS

PAGE = pathlib.Path(__file__).resolve().parent.parent.parent / "Docs" / "clients.md"


def test_of(section, place, text):
    def run(server):
        expected = re.findall(r"print\(.*\)  # (.*)$", text, re.MULTILINE)
        assert expected and "http://localhost:30000" in text, text
        done = subprocess.run(
            [sys.executable, "-c", text.replace("http://localhost:30000", server.url)], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == "\n".join(expected), (done.stdout, expected)

    run.__name__ = f"snippet_{re.sub(r'[^a-z0-9]+', '_', section.lower())}_{place}"
    return run


def register(group):
    """Adds a test for each snippet of a group."""
    section = ""
    parts = list(re.finditer(r"^## ([^\n]*)$|^```python (\w+)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL))
    assert sum(bool(match[2]) for match in parts) >= 10, f"{PAGE} has fewer than ten snippets"
    for place, match in enumerate(parts):
        section = match[1] or section
        if match[2] == group:
            TESTS.append(test_of(section, place, match[3]))
