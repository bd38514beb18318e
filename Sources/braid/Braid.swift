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
        StandardStreams.openClosed()
        let line: LaunchLine
        do {
            line = try LaunchLine(
                Array(CommandLine.arguments.dropFirst()), environment: ProcessInfo.processInfo.environment)
        } catch {
            exit(withError: error)
        }
        await LaunchLine.$current.withValue(line) {
            do {
                try checkFiles()
                var command = try parseAsRoot(line.arguments)
                if var command = command as? any AsyncParsableCommand {
                    try await command.run()
                } else {
                    try command.run()
                }
                try StandardStreams.finish()
            } catch {
                end(withError: error, of: line)
            }
        }
    }

    /// Ends the program as ArgumentParser does, and says from where the options that an error names have their values.
    private static func end(withError error: any Error, of line: LaunchLine) -> Never {
        Log.flush()
        let (message, code) = (message(for: error), exitCode(for: error))
        if code.isSuccess {
            let text = fullMessage(for: error)
            if !text.isEmpty { print(text) }
            do { try StandardStreams.finish() } catch { end(withError: error, of: line) }
        } else if !message.isEmpty {
            let text = fullMessage(for: error).replacing(message, with: line.withOrigins(message), maxReplacements: 1)
            // Where standard error cannot be written, the status is all that tells.
            try? FileHandle.standardError.write(contentsOf: Data((text + "\n").utf8))
        }
        Foundation.exit(code.rawValue)
    }

    /// The descriptors that the program has beside those of its event loops, of which each processor has one with three.
    private static let usedFiles = 24

    /// Checks that the program may open as many files as it has at its start: libraries trap where they get none.
    ///
    /// - Throws: `CommandError` with both numbers.
    private static func checkFiles() throws {
        let needed = usedFiles + 3 * ProcessInfo.processInfo.activeProcessorCount
        let allowed = FileLimit.raise(upTo: needed)
        guard allowed >= needed else {
            throw CommandError(
                "\(allowed) files may be open at a time, and \(needed) are needed here; allow more with ulimit -n")
        }
    }
}
