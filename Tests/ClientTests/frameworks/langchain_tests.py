"""LangChain, with OpenAI's and with Anthropic's interface."""

import langchain_core.exceptions
import langchain_core.tools
import pydantic
from harness import raises, test
from langchain.agents import create_agent
from langchain_anthropic import ChatAnthropic
from langchain_openai import ChatOpenAI
from scripts import BOB, BOB_BY_TOOL, NAME, QUESTION, SCRIPTS, SUNNY, WEATHER


class Person(pydantic.BaseModel):
    name: str
    age: int


@langchain_core.tools.tool
def get_weather(city: str) -> str:
    """Tells the weather in a city."""
    assert city == "Paris", city
    return SUNNY


def openai_model(server, **options):
    return ChatOpenAI(model=NAME, base_url=server.base_url, max_retries=0, **options)


def anthropic_model(server):
    return ChatAnthropic(model=NAME, base_url=server.url, max_tokens=500, max_retries=0)


@test
def langchain_answers(server):
    answer = openai_model(server).invoke(QUESTION)
    assert answer.text == SCRIPTS["paris"], answer
    assert answer.usage_metadata["output_tokens"] > 0 and answer.response_metadata["finish_reason"] == "stop", answer
    answer = anthropic_model(server).invoke(QUESTION)
    assert answer.text == SCRIPTS["paris"] and answer.response_metadata["stop_reason"] == "end_turn", answer


@test
def langchain_streams(server):
    for model in (openai_model(server), anthropic_model(server), openai_model(server, use_responses_api=True)):
        parts = [part.text for part in model.stream(QUESTION)]
        assert "".join(parts) == SCRIPTS["paris"] and len(parts) > 3, parts


@test
def langchain_structured_output(server):
    model = openai_model(server)
    for answer in (
        model.with_structured_output(Person).invoke(BOB),
        model.with_structured_output(Person, method="function_calling").invoke(BOB_BY_TOOL),
        anthropic_model(server).with_structured_output(Person).invoke(BOB_BY_TOOL),
    ):
        assert answer == Person(name="Bob", age=5), answer
    answer = model.with_structured_output(Person, method="json_mode").invoke(BOB + " Answer in JSON.")
    assert answer == Person(name="Bob", age=5), answer


@test
def langchain_agents(server):
    for model in (openai_model(server), anthropic_model(server), openai_model(server, use_responses_api=True)):
        agent = create_agent(model, [get_weather], system_prompt="Be brief.")
        messages = agent.invoke({"messages": [{"role": "user", "content": WEATHER}]})["messages"]
        assert [message.type for message in messages] == ["human", "ai", "tool", "ai"], messages
        assert messages[2].content == SUNNY and messages[3].text == SCRIPTS["sunny"], messages


@test
def langchain_agents_with_structured_output(server):
    agent = create_agent(openai_model(server), [get_weather], response_format=Person)
    answer = agent.invoke({"messages": [{"role": "user", "content": BOB_BY_TOOL}]})["structured_response"]
    assert answer == Person(name="Bob", age=5), answer


@test
def langchain_knows_that_a_prompt_is_too_long(server):
    for model in (openai_model(server), anthropic_model(server)):
        with raises(langchain_core.exceptions.ContextOverflowError):
            model.invoke("x" * 40000)
