"""What the model of the tests says, and the texts in a prompt that make it say so (scripted_checkpoint.py)."""

NAME = "deepseek-v3.2"
D = "｜DSML｜"


def call(tool, **arguments):
    """A call of a tool in DeepSeek-V3.2's markup. Arguments that are not strings are given as JSON."""
    parameters = "".join(
        f'<{D}parameter name="{name}" string="{"true" if isinstance(value, str) else "false"}">{value}</{D}parameter>\n'
        for name, value in arguments.items())
    return f'\n\n<{D}function_calls>\n<{D}invoke name="{tool}">\n{parameters}</{D}invoke>\n</{D}function_calls>'


SCRIPTS = {
    "hello": "Hello there! 你好, world 😀 fin.",
    "think": "I should think about it. </think>The answer is 42.",
    "thinktool": "Need the weather.</think>I will look." + call("get_weather", city="Paris"),
    "paris": "The capital of France is Paris.",
    "weather": "Let me check." + call("get_weather", city="Paris"),
    "json": '{"name": "Bob", "age": 5}',
    "person": call("Person", name="Bob", age=5),
    "output": call("final_result", name="Bob", age=5),
    "code": "Thought: I multiply.\n<code>\nfinal_answer(6 * 7)\n</code>",
    "sunny": "It is sunny in Paris, at 18 degrees.",
    "done": call("final_answer", answer="It is sunny in Paris."),
}
# Words and the scripts they stand for; of several in a prompt, the last one of this list counts.
CUES = [
    ("capital", "paris"), ("umbrella", "weather"), ("neighbour", "json"), ("nephew", "person"), ("grandson", "output"),
    ("sevenfold", "code"), ("galoshes", "thinktool"), ("cloudless", "sunny"), ("raindrops", "done"),
]
QUESTION = "What is the capital of France?"
WEATHER = "Do I need an umbrella in Paris?"
WEATHER_TO_THINK_ABOUT = "Do I need galoshes in Paris?"
BOB = "Our neighbour Bob is five."
BOB_BY_TOOL = "My nephew Bob is five."
BOB_AS_OUTPUT = "Your grandson Bob is five."
MULTIPLY = "How many are sevenfold six?"
SUNNY = "18 degrees and cloudless"
SUNNY_BY_TOOL = "18 degrees and no raindrops"
