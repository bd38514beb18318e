"""How tests start several processes."""

import os
import pathlib
import socket

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = ROOT / ".build" / "release"


def mpirun(processes, command, *options):
    """Returns the command that runs `command` in `processes` processes on this machine, whatever its cores."""
    words = ["mpirun", "-np", str(processes), "--oversubscribe", "--bind-to", "none"]
    if os.geteuid() == 0:
        words.append("--allow-run-as-root")
    return [*words, *options, *command]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
