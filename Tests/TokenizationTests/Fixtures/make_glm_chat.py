"""Makes chat_glm.json: conversations as the Jinja templates of GLM-5, 5.1 and 5.2 render them, with their tokens.

usage: make_glm_chat.py FOLDER   (FOLDER/glm-{5,5.1,5.2}/chat_template.jinja and FOLDER/glm-5/tokenizer.json;
jinja2 3.1.6 when last run, set up as transformers sets it up)
"""
import json
import pathlib
import sys

from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

HERE = pathlib.Path(__file__).parent
WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Wetter — today's <weather> & more", "strict": True,
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
                   "required": ["city"]}}}
NOW = {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}


def said(role, content, **more):
    return {"role": role, "content": content} | more


def call(name, **arguments):
    return {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}


PARIS = call("get_weather", city="Paris \"x\"", days=3, deep={"a": [1, 2.5, None, True], "é": "ü"})
# (messages, tools)
CONVERSATIONS = [
    ([said("user", "Hello")], []),
    ([said("system", "Be terse."), said("user", " Hello\nthere \n")], []),
    ([said("user", "A"), said("assistant", " B \n"), said("user", "C")], []),
    ([said("user", "A"), said("assistant", "B", reasoning_content="why "), said("user", "C")], []),
    ([said("user", "A"), said("assistant", "<think>\nwhy\n</think>\n\nB"), said("user", "C")], []),
    ([said("user", "A"), said("assistant", "", reasoning_content=""), said("user", "C"), said("user", "D")], []),
    ([said("user", "A")], [WEATHER, NOW]),
    ([said("system", "S"), said("user", "A"),
      said("assistant", "Let me see.", reasoning_content="\n why \n", tool_calls=[PARIS, call("now")]),
      said("tool", "{\"t\": 20}", tool_call_id="c1"), said("tool", " noon\n", tool_call_id="c2")], [WEATHER, NOW]),
    ([said("user", "A"), said("assistant", "", tool_calls=[PARIS]), said("tool", "20")], [WEATHER]),
    ([said("user", "A"), said("assistant", "", tool_calls=[call("now")]), said("tool", "20"),
      said("assistant", "It is <think>\n20</think>\n 20."), said("user", "B"),
      said("assistant", "", reasoning_content="again", tool_calls=[call("now")]), said("tool", "21"),
      said("system", "Hurry.")], [NOW]),
]


def main():
    folder = pathlib.Path(sys.argv[1])
    tokenizer = Tokenizer.from_file(str(folder / "glm-5/tokenizer.json"))
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value, ensure_ascii=False: json.dumps(value, ensure_ascii=ensure_ascii)
    rows = []
    for name in ["glm-5", "glm-5.1", "glm-5.2"]:
        template = environment.from_string((folder / name / "chat_template.jinja").read_text())
        for messages, tools in CONVERSATIONS:
            for thinking in [None, False]:
                switch = {} if thinking is None else {"enable_thinking": thinking}
                prompt = template.render(messages=messages, tools=tools or None, add_generation_prompt=True, **switch)
                rows.append({"format": name, "thinking": thinking is None, "messages": messages, "tools": tools,
                             "prompt": prompt, "ids": tokenizer.encode(prompt, add_special_tokens=False).ids})
    with open(HERE / "chat_glm.json", "w") as out:
        out.write("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n")


main()
