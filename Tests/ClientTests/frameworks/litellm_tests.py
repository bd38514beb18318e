"""LiteLLM: its providers for servers like this one, and the errors that it makes of a server's errors."""

import json

import litellm
from harness import raises, test
from scripts import NAME, QUESTION, SCRIPTS, WEATHER

QUESTIONS = [{"role": "user", "content": QUESTION}]
TOO_LONG = [{"role": "user", "content": "x" * 40000}]
TOOL = {"type": "function", "function": {
    "name": "get_weather", "description": "Tells the weather in a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}


def endpoints(server):
    """Arguments for each of LiteLLM's providers by which people reach such a server."""
    for provider in ("openai", "hosted_vllm", "custom_openai"):
        yield {"model": f"{provider}/{NAME}", "api_base": server.base_url, "api_key": "none", "num_retries": 0}
    # LiteLLM asks for the 128,000 tokens of a newer Claude if it is not told how many.
    yield {"model": f"anthropic/{NAME}", "api_base": server.url, "api_key": "none", "num_retries": 0, "max_tokens": 200}


@test
def litellm_answers(server):
    for endpoint in endpoints(server):
        answer = litellm.completion(messages=QUESTIONS, **endpoint)
        assert answer.choices[0].message.content == SCRIPTS["paris"] and answer.usage.completion_tokens > 0, answer


@test
def litellm_streams(server):
    for endpoint in endpoints(server):
        parts = [part.choices[0].delta.content or "" for part in
                 litellm.completion(messages=QUESTIONS, stream=True, **endpoint)]
        assert "".join(parts) == SCRIPTS["paris"] and len(parts) > 3, parts


@test
def litellm_calls_tools(server):
    for endpoint in endpoints(server):
        answer = litellm.completion(messages=[{"role": "user", "content": WEATHER}], tools=[TOOL], **endpoint)
        call, = answer.choices[0].message.tool_calls
        assert call.function.name == "get_weather" and json.loads(call.function.arguments) == {"city": "Paris"}, answer
        assert answer.choices[0].finish_reason == "tool_calls", answer


@test
def litellm_text_completion(server):
    answer = litellm.text_completion(
        model=f"text-completion-openai/{NAME}", api_base=server.base_url, api_key="none", prompt=QUESTION, max_tokens=100)
    assert answer.choices[0].text == SCRIPTS["paris"], answer


@test
def litellm_knows_that_a_prompt_is_too_long(server):
    for endpoint in endpoints(server):
        for stream in (False, True):
            with raises(litellm.ContextWindowExceededError):
                list(litellm.completion(messages=TOO_LONG, stream=stream, **endpoint))


@test
def litellm_maps_errors(server):
    for endpoint in endpoints(server):
        with raises(litellm.BadRequestError) as raised:
            litellm.completion(messages=QUESTIONS, **endpoint | {"max_tokens": -1})
        assert "max_tokens" in str(raised.error), raised.error
        with raises(litellm.NotFoundError) as raised:
            litellm.completion(messages=QUESTIONS, **endpoint | {"model": endpoint["model"].split("/")[0] + "/other"})
        assert "other" in str(raised.error), raised.error
