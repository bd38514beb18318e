import Inference
import JSON

/// A file of conversations in the form of ShareGPT: a list of `{"conversations": [{"value": "…"}, {"value": "…"}]}`, of
/// which the first two messages are a prompt and its answer.
package struct ShareGPT: Sendable {
    package struct Turn: Sendable, Equatable {
        package let prompt: String
        package let answer: String
    }

    /// The prompts and answers in a random order.
    package let turns: [Turn]

    /// A larger file is taken for a mistake.
    private static let limit = 2 << 30
    /// Shorter prompts and answers are left out, as in the benchmarks of SGLang and vLLM.
    private static let leastTokens = 4
    /// Longer prompts, and longer prompts with their answers, are left out as well.
    private static let mostTokens = (prompt: 1024, both: 2048)

    /// - Throws: `CommandError` if the file cannot be read, or has no such conversations.
    package init(path: String, seed: UInt32) throws {
        try self.init(DataFile(path: path, option: "--dataset-path", limit: Self.limit), seed: seed)
    }

    package init(_ file: DataFile, seed: UInt32) throws {
        let root: JSONValue
        do throws(JSONError) {
            root = try JSONValue(parsing: file.bytes)
        } catch {
            throw CommandError("\(file.name): \(error); give a file of ShareGPT's form as --dataset-path")
        }
        var turns = (root.array ?? []).compactMap { entry -> Turn? in
            let messages = (entry["conversations"] ?? entry["conversation"])?.array ?? []
            guard messages.count >= 2, let prompt = messages[0]["value"]?.string,
                let answer = messages[1]["value"]?.string
            else { return nil }
            return Turn(prompt: prompt, answer: answer)
        }
        guard !turns.isEmpty else {
            throw CommandError(
                "\(file.name) has no conversations of two messages; give a list of "
                    + #"{"conversations": [{"value": "…"}, {"value": "…"}]}"#)
        }
        var generator = SeededGenerator(seed: UInt64(seed), stream: 0)
        turns.shuffle(using: &generator)
        self.turns = turns
    }

    /// Returns at most `count` prompts, with as many new tokens as their answers have.
    ///
    /// - Parameters:
    ///   - outputTokens: The new tokens of each prompt instead.
    ///   - server: The server, whose tokenizer counts.
    /// - Throws: `CommandError` if no conversation has a suitable length.
    func prompts(_ count: Int, outputTokens: Int?, _ server: EvalServer) async throws -> [ServingPrompt] {
        var prompts: [ServingPrompt] = []
        for turn in turns where prompts.count < count {
            let tokens = try await server.tokens(of: [turn.prompt, turn.answer], addingSpecialTokens: false)
            let (length, answer) = (tokens[0].count, outputTokens ?? tokens[1].count)
            let isSuitable =
                length >= Self.leastTokens && (outputTokens != nil || answer >= Self.leastTokens)
                && length <= Self.mostTokens.prompt && length + answer <= Self.mostTokens.both
            if isSuitable {
                prompts.append(
                    ServingPrompt(tokens: tokens[0].map { Int32($0) }, text: turn.prompt, maxNewTokens: answer))
            }
        }
        guard !prompts.isEmpty else {
            throw CommandError(
                "--dataset-path: no conversation has \(Self.leastTokens) to \(Self.mostTokens.prompt) tokens of a prompt and "
                    + "at most \(Self.mostTokens.both) with its answer")
        }
        return prompts
    }
}
