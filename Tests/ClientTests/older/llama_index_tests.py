"""LlamaIndex."""

import asyncio

import pydantic
from harness import test
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike
from scripts import BOB, BOB_BY_TOOL, NAME, QUESTION, SCRIPTS, SUNNY, WEATHER


class Person(pydantic.BaseModel):
    name: str
    age: int


def model(server, **options):
    options = {"is_chat_model": True, "is_function_calling_model": True, "context_window": 32768} | options
    return OpenAILike(model=NAME, api_base=server.base_url, api_key="none", max_retries=0, **options)


@test
def llama_index_answers(server):
    assert model(server).chat([ChatMessage("hi"), ChatMessage(QUESTION)]).message.content == SCRIPTS["paris"]
    parts = [part.delta for part in model(server).stream_chat([ChatMessage(QUESTION)])]
    assert "".join(parts) == SCRIPTS["paris"] and len(parts) > 3, parts


@test
def llama_index_completes(server):
    assert model(server, is_chat_model=False).complete(QUESTION).text == SCRIPTS["paris"]


@test
def llama_index_structured_output(server):
    by_tool = model(server).as_structured_llm(Person).complete(BOB_BY_TOOL)
    by_schema = model(server, should_use_structured_outputs=True).as_structured_llm(Person).complete(BOB)
    assert by_tool.raw == by_schema.raw == Person(name="Bob", age=5), (by_tool, by_schema)


@test
def llama_index_agents(server):
    cities = []

    def get_weather(city: str) -> str:
        """Tells the weather in a city."""
        cities.append(city)
        return SUNNY

    async def ask():
        return await FunctionAgent(tools=[get_weather], llm=model(server)).run(WEATHER)

    assert str(asyncio.run(ask())) == SCRIPTS["sunny"] and cities == ["Paris"]
