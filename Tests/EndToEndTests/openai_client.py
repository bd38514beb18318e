#!/usr/bin/env python3
"""Tests a running server with the official OpenAI client. The tests do not depend on the content of answers.

    pip install -r requirements.txt
    openai_client.py --base-url http://127.0.0.1:30000 --model NAME [--api-key KEY]

The last line is `N passed, N failed`; the exit status is 1 if anything failed.
"""

import argparse
import concurrent.futures
import json
import math
import re
import sys
import time
import traceback
from typing import Annotated, Literal

import httpx
import openai
import pydantic

MESSAGES = [
    {"role": "system", "content": "You are brief."},
    {"role": "user", "content": "Say hello to the world. 👋"},
]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather in a city",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]
TESTS = []


def test(function):
    TESTS.append(function)
    return function


TOOL_TESTS = []


def tools_test(function):
    TOOL_TESTS.append(function)
    return function


class Server:
    def __init__(self, url, model, key):
        self.model = model
        self.openai = openai.OpenAI(base_url=f"{url}/v1", api_key=key or "none", max_retries=0, timeout=300)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.http = httpx.Client(base_url=url, headers=headers, timeout=300)

    def chat(self, **more):
        return self.openai.chat.completions.create(**{"model": self.model, "messages": MESSAGES, "max_tokens": 16, **more})

    def complete(self, **more):
        return self.openai.completions.create(**{"model": self.model, "prompt": "Once upon", "max_tokens": 8, **more})

    def metric(self, name):
        """Returns the sum of a metric's series."""
        lines = self.http.get("/metrics").raise_for_status().text.splitlines()
        values = [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"braid_{name}{{")]
        assert values, f"no metric braid_{name}"
        return sum(values)

    def tokens(self, text, beginning=True):
        body = {"prompt": text, "add_special_tokens": beginning}
        return self.http.post("/tokenize", json=body).raise_for_status().json()["tokens"]


def text_of(stream, field="content"):
    """Returns the text of each choice of a stream of chat chunks."""
    texts = {}
    for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + (getattr(choice.delta, field, None) or "")
    return texts


def refused(call, kind):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"expected {kind.__name__}")


@test
def models_are_listed(server):
    assert [model.id for model in server.openai.models.list()] == [server.model]
    assert server.openai.models.retrieve(server.model).id == server.model
    refused(lambda: server.openai.models.retrieve("no-such-model"), openai.NotFoundError)


@test
def a_chat_is_answered(server):
    answer = server.chat(temperature=0)
    choice, usage = answer.choices[0], answer.usage
    assert answer.object == "chat.completion" and answer.model == server.model
    assert choice.message.role == "assistant" and isinstance(choice.message.content, str)
    assert choice.finish_reason in ("stop", "length")
    assert 1 <= usage.completion_tokens <= 16 and usage.prompt_tokens > 5
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.prompt_tokens_details.cached_tokens >= 0


@test
def a_stream_is_the_same_answer_with_usage(server):
    whole = server.chat(temperature=0)
    chunks = list(server.chat(temperature=0, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert text_of(chunks)[0] == whole.choices[0].message.content
    reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert reasons == [whole.choices[0].finish_reason]
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert all(chunk.usage is None for chunk in chunks[:-1])


@test
def a_seed_repeats_an_answer(server):
    first, second = (server.chat(temperature=1, seed=42).choices[0].message.content for _ in range(2))
    assert first == second


@test
def several_choices_have_consecutive_seeds(server):
    answer = server.chat(temperature=1, seed=7, n=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    single = server.chat(temperature=1, seed=8)
    assert answer.choices[1].message.content == single.choices[0].message.content
    streamed = text_of(server.chat(temperature=1, seed=7, n=3, stream=True))
    assert streamed == {choice.index: choice.message.content for choice in answer.choices}


@test
def log_probabilities_are_those_of_the_tokens(server):
    answer = server.chat(temperature=0, logprobs=True, top_logprobs=3)
    entries = answer.choices[0].logprobs.content
    assert len(entries) == answer.usage.completion_tokens
    for entry in entries:
        assert entry.logprob <= 0 and math.isfinite(entry.logprob)
        assert len(entry.top_logprobs) == 3
        best = [top.logprob for top in entry.top_logprobs]
        assert best == sorted(best, reverse=True) and entry.logprob == best[0]
    streamed = server.chat(temperature=0, logprobs=True, top_logprobs=3, stream=True)
    again = [
        entry.logprob
        for chunk in streamed
        for choice in chunk.choices
        if choice.logprobs
        for entry in choice.logprobs.content
    ]
    assert again == [entry.logprob for entry in entries]


@tools_test
def tools_can_be_offered(server):
    answer = server.chat(tools=TOOLS, temperature=0, max_tokens=400)
    choice = answer.choices[0]
    for call in choice.message.tool_calls or []:
        assert call.type == "function" and call.id.startswith("call_")
        assert call.function.name and isinstance(json.loads(call.function.arguments), dict)
    assert (choice.finish_reason == "tool_calls") == bool(choice.message.tool_calls) or choice.finish_reason == "length"
    plain = server.chat(tools=TOOLS, tool_choice="none", temperature=0)
    assert not plain.choices[0].message.tool_calls


@tools_test
def tool_results_can_be_returned(server):
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
    messages = MESSAGES + [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]
    assert server.chat(messages=messages, tools=TOOLS).choices[0].finish_reason


CHOOSE = {
    "type": "function",
    "function": {
        "name": "choose",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"enum": ["Paris", "Rome"]},
                "days": {"type": "integer", "minimum": 1, "maximum": 14},
            },
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}


def check_choice(choice, names=("choose",)):
    assert choice.finish_reason == "tool_calls" and not choice.message.content, choice
    for call in choice.message.tool_calls:
        arguments = json.loads(call.function.arguments)
        assert call.function.name in names
        assert arguments["city"] in ("Paris", "Rome") and 1 <= arguments["days"] <= 14


@tools_test
def calls_can_be_required(server):
    named = {"type": "function", "function": {"name": "choose"}}
    other = {"type": "function", "function": {"name": "other"}}
    for choice in ("required", named):
        for seed in range(4):
            tools = [CHOOSE] if choice == "required" else [CHOOSE, other]
            options = {"tools": tools, "tool_choice": choice, "parallel_tool_calls": False, "seed": seed}
            answer = server.chat(**options, max_tokens=200)
            check_choice(answer.choices[0])
            assert len(answer.choices[0].message.tool_calls) == 1
    # Reasoning is unconstrained, and endless for a random model, so max_tokens may end it.
    thinking = {"chat_template_kwargs": {"thinking": True}}
    answer = server.chat(tools=[CHOOSE], tool_choice="required", extra_body=thinking, max_tokens=30)
    assert answer.choices[0].finish_reason in ("length", "tool_calls")


class Report(pydantic.BaseModel):
    kind: Literal["good", "bad"]
    count: Annotated[int, pydantic.Field(ge=0, le=99)]
    note: Annotated[str, pydantic.Field(max_length=6)]
    child: "Report | None"


@test
def an_answer_can_follow_a_schema(server):
    server_parse = server.openai.chat.completions.parse
    parsed = 0
    for seed in range(6):
        answer = server.chat(
            seed=seed, max_tokens=400, temperature=1.5,
            response_format={"type": "json_schema", "json_schema": {"name": "r", "schema": Report.model_json_schema()}})
        if answer.choices[0].finish_reason == "stop":
            Report.model_validate_json(answer.choices[0].message.content)
            parsed += 1
    assert parsed > 0
    flat = pydantic.create_model("Flat", kind=(Literal["good", "bad"], ...), sure=(bool, ...))
    answer = server_parse(model=server.model, messages=MESSAGES, response_format=flat, max_tokens=60)
    assert isinstance(answer.choices[0].message.parsed, flat)
    one = {"temperature": 0, "extra_body": {"guided_choice": ["yes", "no"]}}
    whole = server.chat(**one).choices[0].message.content
    assert whole in ("yes", "no") and text_of(server.chat(**one, stream=True)) == {0: whole}


@test
def an_answer_can_follow_a_pattern_or_a_grammar(server):
    body = {"text": "Once", "sampling_params": {"regex": "[a-f]{3}-[0-9]{2,5}", "max_new_tokens": 30, "n": 3}}
    for answer in server.http.post("/generate", json=body).raise_for_status().json():
        assert re.fullmatch("[a-f]{3}-[0-9]{2,5}", answer["text"]), answer
    grammar = {"guided_grammar": 'root ::= ("ab" | "c" root){2} "."'}
    text = server.complete(extra_body=grammar, temperature=0.7, max_tokens=200).choices[0].text
    assert re.match("[abc.]+$", text), text
    error = refused(lambda: server.complete(extra_body={"guided_regex": "(?=a)"}), openai.BadRequestError)
    assert "look-ahead" in str(error) and error.param == "guided_regex"
    error = refused(
        lambda: server.complete(extra_body={"guided_json": {"items": {"contains": {}}}}), openai.BadRequestError)
    assert "#/items/contains" in str(error)


@test
def thinking_can_be_switched_on(server):
    thinking = {"chat_template_kwargs": {"thinking": True}}
    whole = server.chat(temperature=0, extra_body=thinking).choices[0].message
    streamed = text_of(server.chat(temperature=0, extra_body=thinking, stream=True), "reasoning_content")
    assert streamed[0] == (whole.reasoning_content or "")


@test
def a_stop_string_is_not_in_the_text(server):
    whole = server.complete(temperature=0, max_tokens=16).choices[0].text
    stop = whole[2:4]
    if len(stop) < 2 or "\ufffd" in stop:
        return
    answer = server.complete(temperature=0, max_tokens=16, stop=[stop]).choices[0]
    assert answer.text == whole[: whole.index(stop)] and answer.finish_reason == "stop"
    streamed = "".join(
        chunk.choices[0].text for chunk in server.complete(temperature=0, max_tokens=16, stop=stop, stream=True)
    )
    assert streamed == answer.text


@test
def a_completion_echoes_and_scores_its_prompt(server):
    tokens = server.tokens("Once upon a time")
    answer = server.complete(prompt=tokens, max_tokens=1, echo=True, logprobs=2, temperature=0)
    scores = answer.choices[0].logprobs
    assert len(scores.tokens) == len(tokens) + 1 == len(scores.token_logprobs) == len(scores.text_offset)
    assert scores.token_logprobs[0] is None and all(score <= 0 for score in scores.token_logprobs[1:])
    assert answer.choices[0].text.startswith("Once upon a time")
    # A request that only scores gets the same scores.
    alone = server.complete(prompt=tokens, max_tokens=0, echo=True, logprobs=0).choices[0].logprobs
    assert alone.token_logprobs == scores.token_logprobs[:-1]


@test
def completions_take_many_prompts(server):
    answer = server.complete(prompt=["Once", "upon"], n=2, temperature=0)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    texts = [choice.text for choice in answer.choices]
    assert texts[0] == texts[1] and texts[2] == texts[3]
    single = server.complete(prompt="upon", temperature=0).choices[0].text
    assert single == texts[2]


@test
def generate_takes_and_returns_tokens(server):
    tokens = server.tokens("Once upon a time")
    body = {
        "input_ids": tokens,
        "sampling_params": {"temperature": 0, "max_new_tokens": 4, "ignore_eos": True},
        "return_logprob": True,
        "logprob_start_len": 0,
    }
    answer = server.http.post("/generate", json=body).raise_for_status().json()
    meta = answer["meta_info"]
    assert len(answer["output_ids"]) == 4 == meta["completion_tokens"] and meta["prompt_tokens"] == len(tokens)
    assert [entry[1] for entry in meta["input_token_logprobs"]] == tokens
    assert [entry[1] for entry in meta["output_token_logprobs"]] == answer["output_ids"]
    assert meta["finish_reason"] == {"type": "length", "length": 4}
    text = server.http.post("/detokenize", json={"tokens": answer["output_ids"]}).json()["text"]
    assert text == answer["text"]


@test
def a_repeated_prompt_has_the_same_answer(server):
    """The second request finds the prompt in the prefix cache, and nothing else changes."""
    prompt = server.tokens("Once upon a time there was " * 40)
    first, second = (server.complete(prompt=prompt, temperature=0, logprobs=1).choices[0] for _ in range(2))
    assert first.text == second.text
    assert first.logprobs.token_logprobs == second.logprobs.token_logprobs


@test
def answers_do_not_depend_on_other_requests(server):
    alone = server.chat(temperature=1, seed=5).choices[0].message.content
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda seed: server.chat(temperature=1, seed=seed), [5, 1, 2, 5, 3, 4, 5, 6]))
    assert {together[place].choices[0].message.content for place in (0, 3, 6)} == {alone}


@test
def mistakes_are_explained(server):
    error = refused(lambda: server.chat(temperature=3), openai.BadRequestError)
    assert error.body["param"] == "temperature" and error.body["message"]
    assert refused(lambda: server.chat(model="other"), openai.NotFoundError).body["code"] == "model_not_found"
    assert refused(lambda: server.chat(n=1000), openai.BadRequestError).body["param"] == "n"
    assert refused(lambda: server.chat(messages=[]), openai.BadRequestError).body["param"] == "messages"
    too_long = refused(lambda: server.chat(max_tokens=2**31), openai.BadRequestError)
    assert too_long.body["code"] == "context_length_exceeded"
    assert server.http.post("/v1/completions", content=b"[" * 100_000).status_code == 400
    assert server.http.delete("/v1/completions").status_code == 405
    assert server.http.get("/nowhere").status_code == 404


@test
def a_request_whose_client_disconnects_is_aborted(server):
    before = server.metric("aborted_requests_total")
    with server.chat(max_tokens=400, stream=True, extra_body={"ignore_eos": True}) as stream:
        next(iter(stream))
    deadline = time.monotonic() + 30
    while server.metric("num_running_reqs") > 0 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert server.metric("num_running_reqs") == 0
    # A very fast model may have finished the answer already.
    assert server.metric("aborted_requests_total") - before in (0, 1)


@test
def load_and_health_are_reported(server):
    assert server.http.get("/health").status_code == 200
    assert server.http.get("/ready").status_code == 200
    assert server.metric("generation_tokens_total") > 0
    assert server.metric("time_to_first_token_seconds_count") > 0
    assert server.http.get("/server_info").json()["served_model_name"] == server.model


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base-url", default="http://127.0.0.1:30000", help="without /v1")
    parser.add_argument("--model", required=True)
    parser.add_argument("--api-key")
    parser.add_argument("--tools", action="store_true", help="run only the tests that need a model whose chat format has tools")
    options = parser.parse_args()
    server = Server(options.base_url.rstrip("/"), options.model, options.api_key)
    failed = 0
    tests = TOOL_TESTS if options.tools else TESTS
    for function in tests:
        name = function.__name__.replace("_", " ")
        try:
            function(server)
            print(f"ok      {name}", flush=True)
        except Exception:
            failed += 1
            print(f"FAILED  {name}\n{traceback.format_exc()}", flush=True)
    print(f"{len(tests) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
