"""The first token of a cold start: it should take little more than reading the checkpoint once."""

import os
import pathlib
import time

import checkpoints
from harness import BRAID, Section, run, table

ROUNDS = 3


def cold(files):
    """Drops what the system keeps of these files in memory."""
    os.sync()
    for file in files:
        with open(file, "rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def seconds(action):
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def read_once(files):
    for file in files:
        with open(file, "rb", buffering=0) as opened:
            buffer = bytearray(8 << 20)
            while opened.readinto(buffer):
                pass


def loading(options):
    section, rows = Section("loading"), []
    model = checkpoints.checkpoint("large")
    files = sorted(pathlib.Path(model).glob("*.safetensors"))
    gigabytes = sum(file.stat().st_size for file in files) / 1e9

    def first_token(*flags):
        run(BRAID, "generate", "--model-path", model, "--input-ids", "5,6,7", "--max-new-tokens", "1",
            "--context-length", "4096", *flags)

    for _ in range(ROUNDS):
        cold(files)
        reading = seconds(lambda: read_once(files))
        cold(files)
        start = seconds(first_token)
        warm = seconds(first_token)
        cold(files)
        preloaded = seconds(lambda: first_token("--preload"))
        section.add(gigabytes=gigabytes, read_seconds=reading, cold_seconds=start, warm_seconds=warm,
                    preload_seconds=preloaded)
        rows.append([f"{gigabytes:.2f}", f"{reading:.2f}", f"{start:.2f}", f"{preloaded:.2f}", f"{warm:.2f}",
                     f"{start / reading:.2f}", f"{preloaded / reading:.2f}"])
    table("seconds until `braid generate` has its first token, process start and end included",
          ["GB", "file read once", "cold", "cold, --preload", "warm", "cold / read", "--preload / read"], rows)
    section.write()
