"""Pydantic AI."""

import pydantic
from harness import test
from pydantic_ai import Agent, NativeOutput, PromptedOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider
from scripts import BOB, BOB_AS_OUTPUT, NAME, QUESTION, SCRIPTS, SUNNY, WEATHER


class Person(pydantic.BaseModel):
    name: str
    age: int


def models(server):
    provider = OpenAIProvider(base_url=server.base_url, api_key="none")
    return OpenAIChatModel(NAME, provider=provider), OpenAIResponsesModel(NAME, provider=provider)


@test
def pydantic_ai_answers(server):
    for model in models(server):
        answer = Agent(model, instructions="Be brief.").run_sync(QUESTION)
        assert answer.output == SCRIPTS["paris"] and answer.usage.output_tokens > 0, answer
        stream = Agent(model).run_stream_sync(QUESTION)
        parts = list(stream.stream_text(delta=True, debounce_by=None))
        assert "".join(parts) == SCRIPTS["paris"] and len(parts) > 3, parts


@test
def pydantic_ai_calls_tools(server):
    for model in models(server):
        agent = Agent(model)
        cities = []

        @agent.tool_plain
        def get_weather(city: str) -> str:
            """Tells the weather in a city."""
            cities.append(city)
            return SUNNY

        answer = agent.run_sync(WEATHER)
        assert answer.output == SCRIPTS["sunny"] and cities == ["Paris"], answer


@test
def pydantic_ai_structured_output(server):
    for model in models(server):
        for output, prompt in ((Person, BOB_AS_OUTPUT), (NativeOutput(Person), BOB), (PromptedOutput(Person), BOB)):
            answer = Agent(model, output_type=output).run_sync(prompt)
            assert answer.output == Person(name="Bob", age=5), answer
