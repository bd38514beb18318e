"""Instructor, in each of its ways of asking for an object that this server has."""

import instructor
import openai
import pydantic
from harness import test
from scripts import BOB, BOB_BY_TOOL, NAME


class Person(pydantic.BaseModel):
    name: str
    age: int


def ask(server, mode, prompt):
    client = instructor.from_openai(openai.OpenAI(base_url=server.base_url, max_retries=0), mode=mode)
    return client.chat.completions.create(
        model=NAME, response_model=Person, max_retries=0, messages=[{"role": "user", "content": prompt}])


@test
def instructor_asks_by_tools(server):
    for mode in (instructor.Mode.TOOLS, instructor.Mode.TOOLS_STRICT):
        assert ask(server, mode, BOB_BY_TOOL) .model_dump() == {"name": "Bob", "age": 5}


@test
def instructor_asks_by_json(server):
    for mode in (instructor.Mode.JSON, instructor.Mode.JSON_SCHEMA):
        assert ask(server, mode, BOB) .model_dump() == {"name": "Bob", "age": 5}


@test
def instructor_streams_parts(server):
    client = instructor.from_openai(
        openai.OpenAI(base_url=server.base_url, max_retries=0), mode=instructor.Mode.JSON_SCHEMA)
    parts = list(client.chat.completions.create_partial(
        model=NAME, response_model=Person, messages=[{"role": "user", "content": BOB}]))
    assert len(parts) > 1 and parts[-1].model_dump() == {"name": "Bob", "age": 5}, parts
