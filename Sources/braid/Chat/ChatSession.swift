import Foundation
package import JSON

/// A conversation with a model: its messages, and the requests that continue it.
package struct ChatSession {
    /// What requests ask for, apart from the messages.
    package struct Settings: Sendable {
        package var system: String?
        /// True if the model is to reason; `nil` for its default.
        package var thinking: Bool?
        /// The sampling parameters that were given.
        package var sampling: [JSONMember] = []

        package init() {}
    }

    package var settings: Settings
    private let model: String
    private var messages: [JSONValue] = []

    package init(model: String, _ settings: Settings) {
        self.model = model
        self.settings = settings
    }

    /// Returns the body of the request that answers a message.
    package func body(asking text: String) -> JSONValue {
        let system = settings.system.map { [Self.message("system", $0)] } ?? []
        var members = [
            JSONMember("model", .string(model)),
            JSONMember("messages", .array(system + messages + [Self.message("user", text)])),
            JSONMember("stream", .bool(true)),
            JSONMember("stream_options", .fields(["include_usage": .bool(true)])),
        ]
        members += settings.sampling
        if let thinking = settings.thinking {
            // The names that chat templates have for it.
            let names = JSONValue.fields(["thinking": .bool(thinking), "enable_thinking": .bool(thinking)])
            members.append(JSONMember("chat_template_kwargs", names))
        }
        return .object(members)
    }

    /// Adds a turn to the conversation. Reasoning does not belong to it: models leave out that of earlier turns.
    package mutating func add(_ text: String, answer: String) {
        messages += [Self.message("user", text), Self.message("assistant", answer)]
    }

    /// Forgets the conversation, but not the settings.
    package mutating func reset() { messages = [] }

    /// The number of messages, without the system's.
    package var count: Int { messages.count }

    private static func message(_ role: String, _ content: String) -> JSONValue {
        .fields(["role": .string(role), "content": .string(content)])
    }
}

/// One answer while it arrives, and what it cost.
package struct ChatAnswer: Sendable {
    /// A piece of the answer.
    package enum Piece: Sendable, Equatable {
        case reasoning(String)
        case content(String)
    }

    /// The answer without its reasoning.
    package private(set) var content = ""
    package private(set) var finishReason: String?
    private let start: ContinuousClock.Instant
    private var first: ContinuousClock.Instant?
    private var last: ContinuousClock.Instant?
    private var pieces = 0
    private var usage: JSONValue?

    package init(start: ContinuousClock.Instant = .now) { self.start = start }

    /// Reads an event of the stream, and returns the pieces in it.
    ///
    /// - Throws: `CommandError` if the server reports an error, or the event is no chunk of a chat.
    package mutating func take(_ event: [UInt8], at now: ContinuousClock.Instant = .now) throws -> [Piece] {
        guard let chunk = try? JSONValue(parsing: event) else {
            throw CommandError("the server sent an event that is no JSON")
        }
        if let error = chunk["error"], !error.isNull { throw CommandError(serverMessage(of: error)) }
        if let usage = chunk["usage"], !usage.isNull { self.usage = usage }
        guard let choice = chunk["choices"]?.array?.first else { return [] }
        finishReason = choice["finish_reason"]?.string ?? finishReason
        let delta = choice["delta"]
        // vLLM and others have the shorter name.
        let reasoning = delta?["reasoning_content"]?.string ?? delta?["reasoning"]?.string ?? ""
        let text = delta?["content"]?.string ?? ""
        guard !reasoning.isEmpty || !text.isEmpty else { return [] }
        first = first ?? now
        last = now
        pieces += 1
        content += text
        return (reasoning.isEmpty ? [] : [.reasoning(reasoning)]) + (text.isEmpty ? [] : [.content(text)])
    }

    /// What the answer cost, in a line.
    package var cost: String {
        let prompt = usage?["prompt_tokens"]?.integer
        let new = usage?["completion_tokens"]?.integer
        var parts: [String] = []
        if let prompt {
            let cached = usage?["prompt_tokens_details"]?["cached_tokens"]?.integer
            parts.append("prompt \(prompt) tokens" + (cached.map { ", \($0) of them cached" } ?? ""))
        }
        let reasoning = usage?["completion_tokens_details"]?["reasoning_tokens"]?.integer ?? 0
        parts.append(
            (new.map { "answer \($0) tokens" } ?? "answer \(pieces) pieces")
                + (reasoning > 0 ? ", \(reasoning) of them reasoning" : ""))
        if let first, let last {
            parts.append("time to first token \(rounded((first - start) / .seconds(1))) s")
            let (count, seconds) = ((new ?? pieces) - 1, (last - first) / .seconds(1))
            if count > 0, seconds > 0 {
                let rate = String(format: "%.1f", Double(count) / seconds)
                parts.append("then \(rate) \(new == nil ? "pieces" : "tokens")/s")
            }
        }
        if let finishReason, finishReason != "stop" { parts.append("ended by \(finishReason.printableLine)") }
        return parts.joined(separator: "; ")
    }
}
