"""The clients of OpenAI and Anthropic."""

import json

import anthropic
import openai
import pydantic
from harness import raises, test
from scripts import BOB_BY_TOOL, NAME, QUESTION, SCRIPTS, SUNNY, WEATHER, WEATHER_TO_THINK_ABOUT

GREEDY = {"temperature": 0}  # Anthropic's client has no argument for it
USER = {"role": "user", "content": "hi"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def openai_client(server):
    return openai.OpenAI(base_url=server.base_url, max_retries=0)


def anthropic_client(server):
    return anthropic.Anthropic(base_url=server.url, max_retries=0)


class Person(pydantic.BaseModel):
    name: str
    age: int


def openai_tool():
    function = {"name": "get_weather", "description": "The weather in a city", "parameters": SCHEMA}
    return {"type": "function", "function": function}


@test
def chat(server):
    answer = openai_client(server).chat.completions.create(
        model=NAME, messages=[USER], temperature=0, logit_bias=server.say("hello")["logit_bias"])
    assert answer.choices[0].message.content == SCRIPTS["hello"], answer
    assert answer.choices[0].finish_reason == "stop" and answer.usage.completion_tokens > 0
    assert answer._request_id


@test
def chat_stream(server):
    with openai_client(server).chat.completions.stream(
        model=NAME, messages=[USER], temperature=0, logit_bias=server.say("hello")["logit_bias"],
        stream_options={"include_usage": True},
    ) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == SCRIPTS["hello"], final
    assert final.usage.completion_tokens > 0


@test
def chat_parse(server):
    answer = openai_client(server).chat.completions.parse(
        model=NAME, messages=[USER], temperature=0, response_format=Person,
        logit_bias=server.say("json")["logit_bias"])
    assert answer.choices[0].message.parsed == Person(name="Bob", age=5), answer


@test
def chat_tools(server):
    client, question = openai_client(server), {"role": "user", "content": WEATHER}
    answer = client.chat.completions.create(model=NAME, messages=[question], tools=[openai_tool()])
    message = answer.choices[0].message
    assert answer.choices[0].finish_reason == "tool_calls" and message.content == "Let me check.", answer
    assert json.loads(message.tool_calls[0].function.arguments) == {"city": "Paris"}
    messages = [question, message, {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": SUNNY}]
    answer = client.chat.completions.create(model=NAME, messages=messages, tools=[openai_tool()])
    assert answer.choices[0].message.content == SCRIPTS["sunny"], answer


@test
def chat_tools_that_are_required(server):
    tool = openai.pydantic_function_tool(Person)
    for choice in ("required", {"type": "function", "function": {"name": "Person"}}):
        answer = openai_client(server).chat.completions.parse(
            model=NAME, messages=[{"role": "user", "content": BOB_BY_TOOL}], tools=[tool], tool_choice=choice)
        call, = answer.choices[0].message.tool_calls
        assert call.function.parsed_arguments == Person(name="Bob", age=5), answer


@test
def chat_thinking(server):
    answer = openai_client(server).chat.completions.create(
        model=NAME, messages=[USER], temperature=0, reasoning_effort="high",
        logit_bias=server.say("think")["logit_bias"])
    message = answer.choices[0].message
    assert message.content == "The answer is 42." and message.reasoning_content == "I should think about it. "


@test
def models(server):
    assert [model.id for model in openai_client(server).models.list()] == [NAME]
    assert openai_client(server).models.retrieve(NAME).id == NAME


@test
def responses(server):
    answer = openai_client(server).responses.create(
        model=NAME, input="hi", instructions="Be brief.", temperature=0, store=False,
        extra_body=server.say("hello"))
    assert answer.output_text == SCRIPTS["hello"] and answer.status == "completed", answer
    assert answer.usage.input_tokens > 0 and answer.usage.output_tokens > 0


@test
def responses_stream(server):
    with openai_client(server).responses.stream(
        model=NAME, input="hi", temperature=0, reasoning={"effort": "high"}, extra_body=server.say("think"),
    ) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert final.output_text == "The answer is 42.", final
    assert [item.type for item in final.output] == ["reasoning", "message"]
    assert [event.sequence_number for event in events if hasattr(event, "sequence_number")][:3] == [0, 1, 2]
    deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert deltas == "The answer is 42."


@test
def responses_parse(server):
    answer = openai_client(server).responses.parse(
        model=NAME, input="hi", temperature=0, text_format=Person, extra_body=server.say("json"))
    assert answer.output_parsed == Person(name="Bob", age=5), answer


@test
def responses_tools(server):
    tool = {"type": "function", "name": "get_weather", "parameters": SCHEMA, "strict": False}
    answer = openai_client(server).responses.create(
        model=NAME, input=WEATHER, tools=[tool])
    call = answer.output[-1]
    assert call.type == "function_call" and json.loads(call.arguments) == {"city": "Paris"}, answer
    items = [{"role": "user", "content": WEATHER}, *answer.output, {"type": "function_call_output", "call_id": call.call_id, "output": SUNNY}]
    answer = openai_client(server).responses.create(
        model=NAME, input=items, tools=[tool])
    assert answer.output_text == SCRIPTS["sunny"], answer


@test
def responses_are_not_stored(server):
    with raises(openai.BadRequestError) as raised:
        openai_client(server).responses.create(model=NAME, input="hi", previous_response_id="resp_1")
    assert raised.error.param == "previous_response_id", raised.error


@test
def messages(server):
    answer = anthropic_client(server).messages.create(
        model=NAME, max_tokens=200, system="Be brief.", messages=[USER],
        extra_body=server.say("hello") | GREEDY)
    assert answer.content[0].text == SCRIPTS["hello"] and answer.stop_reason == "end_turn", answer
    assert answer.usage.output_tokens > 0 and answer._request_id
    counted = anthropic_client(server).messages.count_tokens(model=NAME, system="Be brief.", messages=[USER])
    assert counted.input_tokens == answer.usage.input_tokens + answer.usage.cache_read_input_tokens


@test
def messages_stream(server):
    with anthropic_client(server).messages.stream(
        model=NAME, max_tokens=2000, messages=[USER],
        thinking={"type": "enabled", "budget_tokens": 1024}, extra_body=server.say("think") | GREEDY,
    ) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == "The answer is 42.", text
    assert [block.type for block in final.content] == ["thinking", "text"]
    assert final.content[0].thinking == "I should think about it. " and final.usage.output_tokens > 0


@test
def messages_tools(server):
    tool = {"name": "get_weather", "description": "The weather in a city", "input_schema": SCHEMA}
    question = {"role": "user", "content": WEATHER_TO_THINK_ABOUT}
    with anthropic_client(server).messages.stream(
        model=NAME, max_tokens=2000, messages=[question], tools=[tool],
        thinking={"type": "enabled", "budget_tokens": 1024},
    ) as stream:
        answer = stream.get_final_message()
    assert [block.type for block in answer.content] == ["thinking", "text", "tool_use"], answer
    call = answer.content[-1]
    assert call.input == {"city": "Paris"} and answer.stop_reason == "tool_use"
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": SUNNY}]}
    answer = anthropic_client(server).messages.create(
        model=NAME, max_tokens=200, messages=[question, {"role": "assistant", "content": answer.content}, result],
        tools=[tool])
    assert answer.content[0].text == SCRIPTS["sunny"], answer


@test
def messages_tool_runner(server):
    """The client runs the tool and asks again with its result, until the model calls none. Where it begins with a thread,
    which is refused, it goes on without."""
    cities = []

    @anthropic.beta_tool
    def get_weather(city: str) -> str:
        """The weather in a city."""
        cities.append(city)
        return SUNNY

    client, question = anthropic_client(server), {"role": "user", "content": WEATHER}
    for thread in (anthropic.omit, False):
        for stream in (False, True):
            runner = client.beta.messages.tool_runner(
                model=NAME, max_tokens=200, messages=[question], tools=[get_weather], thread=thread, stream=stream)
            first, last = [answer.get_final_message() if stream else answer for answer in runner]
            assert [block.type for block in first.content] == ["text", "tool_use"], first
            assert first.content[0].text == "Let me check." and first.content[1].input == {"city": "Paris"}, first
            assert (first.stop_reason, last.stop_reason) == ("tool_use", "end_turn"), (first, last)
            assert [block.text for block in last.content] == [SCRIPTS["sunny"]], last
            assert cities == ["Paris"], cities
            cities.clear()


@test
def messages_models(server):
    client = anthropic_client(server)
    listed = client.models.list()
    assert [model.id for model in listed] == [NAME] and listed.has_more is False, listed
    assert listed.first_id == listed.last_id == NAME
    assert not list(client.models.list(after_id=NAME)) and not list(client.models.list(before_id=NAME, limit=1))
    model = client.models.retrieve(NAME)
    assert model == listed.data[0] and (model.type, model.display_name, model.lifecycle) == ("model", NAME, "active"), model
    assert model.created_at.tzinfo and model.max_input_tokens == model.max_tokens + 1 > 1, model
    with raises(anthropic.NotFoundError) as raised:
        client.models.retrieve("another")
    assert raised.error.body["error"]["type"] == "not_found_error", raised.error


@test
def too_long_a_prompt(server):
    long = {"role": "user", "content": "x" * 40000}
    with raises(openai.BadRequestError) as raised:
        openai_client(server).chat.completions.create(model=NAME, messages=[long])
    assert raised.error.code == "context_length_exceeded", raised.error
    assert "maximum context length is" in raised.error.message
    with raises(anthropic.BadRequestError) as raised:
        anthropic_client(server).messages.create(model=NAME, max_tokens=5, messages=[long])
    assert raised.error.body["error"]["message"].startswith("prompt is too long"), raised.error


@test
def a_cue_in_the_prompt(server):
    answer = openai_client(server).chat.completions.create(model=NAME, messages=[{"role": "user", "content": QUESTION}])
    assert answer.choices[0].message.content == SCRIPTS["paris"], answer
