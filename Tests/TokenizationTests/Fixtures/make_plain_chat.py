"""Makes chat_plain.json: conversations as the Jinja templates of V3, R1, V3.1 and the demo model render them.

usage: make_plain_chat.py FOLDER   (FOLDER/deepseek-{v3,r1,v3.1}/tokenizer_config.json; jinja2 3.1.6 when last run)
"""
import json
import pathlib
import sys

import jinja2

HERE = pathlib.Path(__file__).parent
CONVERSATIONS = [
    [("user", "Hello")],
    [("system", "Be terse."), ("user", "Hello\nthere")],
    [("system", "S"), ("user", "A"), ("assistant", "B"), ("user", "C")],
    [("user", "A"), ("assistant", "why</think>B"), ("user", "C"), ("assistant", "x</think>y</think>z"), ("user", "D")],
    [("user", "A"), ("user", "B")],
]


def main():
    folders = {"deepSeekV3": "deepseek-v3", "deepSeekR1": "deepseek-r1", "deepSeekV31": "deepseek-v3.1"}
    configs = {name: pathlib.Path(sys.argv[1]) / folder for name, folder in folders.items()}
    configs["demo"] = HERE / "demo"
    rows = []
    for name, folder in configs.items():
        config = json.load(open(folder / "tokenizer_config.json"))
        template = jinja2.Environment().from_string(config["chat_template"])
        token = lambda key: config[key] if isinstance(config[key], str) else config[key]["content"]
        for conversation in CONVERSATIONS[:3 if name == "demo" else None]:
            messages = [{"role": role, "content": content} for role, content in conversation]
            for thinking in [False, True] if name == "deepSeekV31" else [False]:
                prompt = template.render(
                    messages=messages, add_generation_prompt=True, thinking=thinking, bos_token=token("bos_token"),
                    eos_token=token("eos_token"))
                rows.append({"format": name, "thinking": thinking, "messages": messages, "prompt": prompt})
    with open(HERE / "chat_plain.json", "w") as out:
        out.write("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n")


main()
