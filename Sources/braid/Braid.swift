package import ArgumentParser

/// The `braid` command. Each subcommand has a file of its own.
@main
package struct Braid: AsyncParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "braid",
        abstract: "A serving engine for DeepSeek's long-context models.",
        discussion: """
            Models are directories as Hugging Face has them: config.json, *.safetensors, tokenizer.json.
            Familiar spellings of other engines' flags are accepted.
            """,
        subcommands: [
            Serve.self, Generate.self, Verify.self, Bench.self, Eval.self, Inspect.self, Plan.self, Tune.self,
        ])

    package init() {}
}
