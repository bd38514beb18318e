"""Makes json.json: JSON texts and what Python's json.dumps(json.loads(text), ensure_ascii=False) makes of them."""
import json
import pathlib
import random
import struct

rng = random.Random(1)
TEXTS = [
    "null", " true ", "false", "[]", "{}", "0", "-0", "-0.0", "1.0", "1e5", "1E+2", "1e16", "1e15", "123456789012345678",
    "12345678901234567890123456789", "9007199254740993.0", "1e22", "1e23", "1.5e-7", "1e-4", "1e-5", "0.0001", "5e-324",
    "1.7976931348623157e308", "2.2250738585072014e-308", "0.1", "0.30000000000000004", "100.0", "-1.25", "1e-400",
    '"\\u00e9\\ud83d\\ude00"', '"\\b\\f\\n\\r\\t\\"\\\\\\/"', '"\\u0000\\u001f\\u007f\\u2028"', '"\u4f60\u597d \u00e9 e\u0301"',
    '{"a": 1, "b": 2, "a": 3}', '{"\u00e9": 1, "e\\u0301": 2}', '[1,2 , [3, {"x":[ ]}]]', '{ "k" : [ null , true ] }',
    "[" * 100 + "]" * 100]
for _ in range(120):
    value = struct.unpack("<d", struct.pack("<Q", rng.getrandbits(64)))[0]
    if value == value and abs(value) != float("inf"):
        TEXTS.append("%.17g" % value)
for _ in range(60):
    TEXTS.append(repr(round(rng.uniform(-1, 1) * 10 ** rng.randint(-8, 18), rng.randint(0, 6))))

rows = [[text, json.dumps(json.loads(text), ensure_ascii=False)] for text in TEXTS]
with open(pathlib.Path(__file__).parent / "json.json", "w") as out:
    out.write("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
