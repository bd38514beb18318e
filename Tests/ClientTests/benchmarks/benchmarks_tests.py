"""The benchmarks of vLLM and SGLang, and SGLang's frontend language."""

import json
import pathlib
import tempfile

import harness
from harness import test
from scripts import NAME, QUESTION, SCRIPTS

REQUESTS, PROMPT, NEW = 4, 32, 16


@test
def vllm_bench_serve(server):
    for backend, route in (("openai", "/v1/completions"), ("openai-chat", "/v1/chat/completions")):
        with tempfile.TemporaryDirectory() as folder:
            harness.run(
                "vllm", "bench", "serve", "--backend", backend, "--endpoint", route, "--base-url", server.url, "--model",
                NAME, "--tokenizer", server.model, "--dataset-name", "random", "--random-input-len", PROMPT,
                "--random-output-len", NEW, "--num-prompts", REQUESTS, "--ignore-eos", "--save-result", "--result-dir",
                folder, "--result-filename", "result.json")
            result = json.loads((pathlib.Path(folder) / "result.json").read_text())
        assert result["completed"] == REQUESTS and result["total_output_tokens"] == REQUESTS * NEW, result


@test
def sglang_bench_serving(server):
    for backend in ("sglang", "sglang-oai", "sglang-oai-chat"):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "result.jsonl"
            harness.run(
                "python", "-m", "sglang.bench_serving", "--backend", backend, "--base-url", server.url, "--model", NAME,
                "--tokenizer", server.model, "--dataset-name", "random-ids", "--random-input-len", PROMPT,
                "--random-output-len", NEW, "--random-range-ratio", 1, "--num-prompts", REQUESTS, "--output-file", path)
            result = json.loads(path.read_text().splitlines()[-1])
        assert result["completed"] == REQUESTS and result["total_output_tokens"] == REQUESTS * NEW, result


@test
def sglang_runtime_endpoint(server):
    import sglang

    @sglang.function
    def program(s, question):
        s += question
        s += sglang.gen("answer", max_tokens=100, temperature=0)

    @sglang.function
    def choose(s):
        s += QUESTION
        s += sglang.select("choice", choices=["ab", "abcdef"])

    sglang.set_default_backend(sglang.RuntimeEndpoint(server.url))
    assert program.run(question=QUESTION)["answer"] == SCRIPTS["paris"]
    parts = list(program.run(question=QUESTION, stream=True).text_iter())
    assert "".join(parts) == QUESTION + SCRIPTS["paris"], parts
    assert choose.run()["choice"] in ("ab", "abcdef")
