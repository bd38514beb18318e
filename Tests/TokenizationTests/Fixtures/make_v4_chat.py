"""Makes chat_v4.json: conversations of DeepSeek-V4 with the prompts and tokens of its two encoders.

usage: make_v4_chat.py FOLDER_OF_ENCODING_DSV4 FOLDER_OF_THE_V4_TOKENIZER

The first folder holds encoding_dsv4.py, the encoder that is released with the checkpoints; the second encoder is the
package deepseek-recipe (0.2.0). Tokens are made by `tokenizers` (0.23.3).
"""
import json
import pathlib
import sys

import deepseek_recipe as recipe
from tokenizers import Tokenizer

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, sys.argv[1])
import encoding_dsv4  # noqa: E402


def call(id, name, arguments):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


TOOLS = [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}]
user = {"role": "user", "content": "A"}
again = {"role": "user", "content": "C"}
answer = {"role": "assistant", "content": "B", "reasoning_content": "R"}
reminder = {"role": "latest_reminder", "content": "2026-02-21, Friday"}
calls = {"role": "assistant", "content": "", "reasoning_content": "R",
         "tool_calls": [call("x", "f", "{}"), call("y", "g", '{"n": 1}')]}
first, second = ({"role": "tool", "tool_call_id": id, "content": "of " + id} for id in "xy")

BOTH = [
    [user, again], [reminder, user], [{"role": "system", "content": "S"}, reminder, user],
    [user, answer, reminder, again], [user, calls, first, second], [user, calls, second, first],
    [user, calls, second, first, again], [user, calls, first], [user, calls, second, first, answer, again],
    [{"role": "system", "content": "S", "tools": TOOLS}, user, calls, first, second, answer, again],
    [{"role": "system", "content": "S", "tools": TOOLS}, user, {"role": "assistant", "content": "B"}, again],
    [user, {"role": "assistant", "content": "Well,", "reasoning_content": "R", "wo_eos": True}],
    [user, {"role": "assistant", "content": "Well,", "wo_eos": True}],
    [user, {"role": "assistant", "content": "", "tool_calls": [call("x", "f", '{"a": ')]}, first],
    [user, {"role": "assistant", "content": "", "tool_calls": [call("x", "f", "no JSON")]}, first],
]
RECIPE = [
    [user, {"role": "assistant", "content": "", "tool_calls": [call("x", "f", "[1]")]}, first],
    [user, {"role": "assistant", "content": "", "tool_calls": [call("x", "f", "null")]}, first],
    [user, {"role": "system", "content": "S"}, answer, {"role": "system", "content": "T"}, again],
]
CHECKPOINT = [
    [{"role": "developer", "content": "D"}],
    [{"role": "system", "content": "S"}, reminder, {"role": "developer", "content": "D"}],
    [user, {"role": "assistant", "content": "B", "reasoning_content": "R", "task": "title"}],
    [{**user, "task": "action"}, {"role": "assistant", "content": "Search"}, again],
    [{**user, "task": "query"}, {"role": "assistant", "content": "q"}],
    [user, answer, {**again, "task": "action"}], [{**user, "task": "action"}],
] + [[{**user, "task": task}] for task in ("query", "authority", "domain", "title", "read_url")]


def by_checkpoint(messages, thinking, effort):
    return encoding_dsv4.encode_messages(messages, "thinking" if thinking else "chat", reasoning_effort=effort)


def by_recipe(messages, thinking, effort):
    made, tools, schema = [], None, None
    for message in messages:
        role, content = message["role"], message["content"]
        if role == "system":
            functions = [tool["function"] for tool in message.get("tools", [])]
            tools = [recipe.ToolDefinition(f["name"], f["description"], f["parameters"]) for f in functions]
            schema = message.get("response_format")
            made.append(recipe.SystemMessage(content))
        elif role == "user":
            made.append(recipe.UserMessage(content))
        elif role == "tool":
            made.append(recipe.ToolMessage(content, message["tool_call_id"]))
        elif role == "latest_reminder":
            made.append(recipe.LatestReminderMessage(content))
        else:
            used = [recipe.ToolCall(c["id"], c["function"]["name"], c["function"]["arguments"])
                    for c in message.get("tool_calls", [])]
            made.append(recipe.AssistantMessage(
                content, message.get("reasoning_content"), used or None, message.get("wo_eos", False)))
    conversation = recipe.Conversation(
        made, thinking_mode=thinking, tools=tools, reasoning_effort=effort, response_schema=schema)
    return recipe.DeepseekV4Encoding().render_conversation(conversation).prompt


def main():
    tokenizer = Tokenizer.from_file(sys.argv[2] + "/tokenizer.json")
    shared = []
    for row in json.load(open(HERE / "chat_v32.json")):
        if row["messages"] not in shared:
            shared.append(row["messages"])
    asked = [("checkpoint", by_checkpoint, m, t, None) for m in shared + BOTH + CHECKPOINT for t in (False, True)]
    asked += [("recipe", by_recipe, m, t, "low") for m in shared + BOTH + RECIPE for t in (False, True)]
    terse = [{"role": "system", "content": "You are terse."}, {"role": "user", "content": "Hello"}]
    asked += [("checkpoint", by_checkpoint, terse, t, e) for t in (False, True) for e in (None, "high", "max")]
    efforts = (None, "low", "high", "xhigh", "max")
    asked += [("recipe", by_recipe, terse, t, e) for t in (False, True) for e in efforts]
    rows = []
    for encoder, encode, messages, thinking, effort in asked:
        # The library fills in what functions leave out; the conversations here leave out nothing.
        prompt = encode(messages, thinking, effort)
        rows.append({
            "encoder": encoder, "thinking": thinking, "effort": effort, "messages": messages, "prompt": prompt,
            "ids": tokenizer.encode(prompt, add_special_tokens=False).ids})
    with open(HERE / "chat_v4.json", "w") as out:
        out.write("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows) + "\n]\n")


main()
