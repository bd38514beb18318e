package import ArgumentParser
import Foundation
import Serving

/// The `braid` command. Each subcommand has a file of its own.
@main
package struct Braid: AsyncParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "braid",
        abstract: "A serving engine for DeepSeek's long-context models.",
        discussion: """
            Models are directories as Hugging Face has them: config.json, *.safetensors, tokenizer.json.
            Options of other engines' launch commands are accepted: Docs/options.md.
            """,
        version: ServerConfiguration.version,
        subcommands: [
            Serve.self, RouterCommand.self, Chat.self, Generate.self, Verify.self, Bench.self, Eval.self, Inspect.self,
            Plan.self,
            Tune.self,
        ])

    package init() {}

    /// Runs the command of the program's command line, completed by configuration file and environment.
    package static func main() async {
        let line: LaunchLine
        do {
            line = try LaunchLine(
                Array(CommandLine.arguments.dropFirst()), environment: ProcessInfo.processInfo.environment)
        } catch {
            exit(withError: error)
        }
        await LaunchLine.$current.withValue(line) {
            do {
                var command = try parseAsRoot(line.arguments)
                if var command = command as? any AsyncParsableCommand {
                    try await command.run()
                } else {
                    try command.run()
                }
            } catch {
                end(withError: error, of: line)
            }
        }
    }

    /// Ends the program as ArgumentParser does, and says from where the options that an error names have their values.
    private static func end(withError error: any Error, of line: LaunchLine) -> Never {
        Log.flush()
        let (message, code) = (message(for: error), exitCode(for: error))
        guard !code.isSuccess, !message.isEmpty else { exit(withError: error) }
        let text = fullMessage(for: error).replacing(message, with: line.withOrigins(message), maxReplacements: 1)
        FileHandle.standardError.write(Data((text + "\n").utf8))
        Foundation.exit(code.rawValue)
    }
}
