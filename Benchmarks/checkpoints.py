"""The benchmark models' checkpoints, in the form every engine reads, made once and kept beside the build."""

import pathlib
import subprocess
import sys
import tarfile

from harness import run

FOLDER = pathlib.Path(".build/benchmarks")


def checkpoint(model):
    """The directory of a model's checkpoint, which is made if it is not there."""
    folder = FOLDER / model
    if not (folder / "generation_config.json").exists():
        run(sys.executable, "Oracle/make_checkpoint.py", "--config", f"Benchmarks/models/{model}/config.json",
            "--out", folder)
    return folder


def gguf(model, types):
    """A directory with the same weights as GGUF in each of these types."""
    folder = FOLDER / f"{model}-gguf"
    folder.mkdir(parents=True, exist_ok=True)
    for kind in types:
        file = folder / f"{kind}.gguf"
        if not file.exists():
            part = file.with_suffix(".part")
            run(sys.executable, "Benchmarks/peers/to_gguf.py", "--converter", converter(), "--model",
                checkpoint(model), "--out", part, "--type", kind)
            part.rename(file)
    return folder


def converter():
    """llama.cpp's converter, which is in llama-cpp-python's source and not in what is installed of it."""
    requirement = next(line for line in pathlib.Path("Benchmarks/requirements.txt").read_text().splitlines()
                       if line.startswith("llama-cpp-python=="))
    name = requirement.replace("-", "_").replace("==", "-")
    folder = FOLDER / name
    if not folder.exists():
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                        "--no-binary", "llama-cpp-python", "--dest", FOLDER, requirement], check=True)
        with tarfile.open(FOLDER / f"{name}.tar.gz") as source:
            source.extractall(FOLDER, filter="data")
    return folder / "vendor/llama.cpp"
