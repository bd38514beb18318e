"""smolagents: agents that call tools, and agents that write code."""

from harness import test
from scripts import MULTIPLY, NAME, SUNNY_BY_TOOL, WEATHER
from smolagents import CodeAgent, OpenAIModel, ToolCallingAgent, tool


@tool
def get_weather(city: str) -> str:
    """Tells the weather in a city.

    Args:
        city: The city.
    """
    assert city == "Paris", city
    return SUNNY_BY_TOOL


def model(server):
    return OpenAIModel(NAME, api_base=server.base_url, api_key="none")


@test
def smolagents_call_tools(server):
    agent = ToolCallingAgent(tools=[get_weather], model=model(server), max_steps=3, verbosity_level=0)
    assert agent.run(WEATHER) == "It is sunny in Paris."


@test
def smolagents_write_code(server):
    for stream in (False, True):
        agent = CodeAgent(tools=[], model=model(server), max_steps=2, verbosity_level=0, stream_outputs=stream)
        assert agent.run(MULTIPLY) == 42
