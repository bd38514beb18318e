import Foundation
import JSON

/// What all parts of one answer repeat: whose answer, of which kind, from which model, and when.
struct Envelope: Sendable {
    let id: String
    let created: Int
    let model: String
    /// The `object` member: what kind of answer this is.
    let object: String

    init(prefix: String, object: String, model: String) {
        id = prefix + Self.randomDigits()
        created = Int(Date().timeIntervalSince1970)
        self.model = model
        self.object = object
    }

    /// - Parameters:
    ///   - choices: each as it was written.
    ///   - usage: `nil` for an answer without that member.
    func body(choices: [[UInt8]], usage: JSONValue? = nil) -> [UInt8] {
        var writer = JSONWriter()
        writer.reserve(choices.reduce(512) { $0 + $1.count + 2 })
        writer.beginObject()
        writer.member("id", .string(id))
        writer.member("object", .string(object))
        writer.member("created", .integer(created))
        writer.member("model", .string(model))
        writer.key("choices")
        writer.beginArray()
        for choice in choices { writer.written(choice) }
        writer.endArray()
        if let usage { writer.member("usage", usage) }
        writer.endObject()
        return writer.takeBytes()
    }

    /// A part of a stream that will end with the usage, or not.
    func chunk(_ choice: [UInt8], _ stream: StreamFields) -> [UInt8] {
        body(choices: [choice], usage: stream.includesUsage ? .null : nil)
    }

    /// 32 hexadecimal digits nobody can guess.
    static func randomDigits() -> String {
        (0..<2).map { _ in
            let digits = String(UInt64.random(in: .min ... .max), radix: 16)
            return String(repeating: "0", count: 16 - digits.count) + digits
        }.joined()
    }
}

/// Adds up what the choices of a request cost: each prompt once, however many choices it has.
struct UsageTotals {
    private let choicesPerPrompt: Int
    private var promptTokens = 0
    private var completionTokens = 0
    private var cachedTokens: Int?
    private var reasoningTokens: Int?

    init(choicesPerPrompt: Int) {
        self.choicesPerPrompt = choicesPerPrompt
    }

    /// - Parameter reasoningTokens: `nil` where reasoning is not told apart.
    mutating func add(_ finish: TextFinish, of index: Int, reasoningTokens: Int? = nil) {
        completionTokens += finish.completionTokens
        if let reasoningTokens { self.reasoningTokens = (self.reasoningTokens ?? 0) + reasoningTokens }
        guard index.isMultiple(of: choicesPerPrompt) else { return }
        promptTokens += finish.promptTokens
        if let cached = finish.cachedTokens { cachedTokens = (cachedTokens ?? 0) + cached }
    }

    var json: JSONValue {
        var members = JSONMember.list([
            "prompt_tokens": .integer(promptTokens), "completion_tokens": .integer(completionTokens),
            "total_tokens": .integer(promptTokens + completionTokens),
            "prompt_tokens_details": cachedTokens.map { .fields(["cached_tokens": .integer($0)]) } ?? .null,
        ])
        if let reasoningTokens {
            members.append(
                JSONMember("completion_tokens_details", .fields(["reasoning_tokens": .integer(reasoningTokens)])))
        }
        return .object(members)
    }
}

/// `stream` and `stream_options`, the same for both OpenAI routes.
struct StreamFields: Sendable {
    let isOn: Bool
    let includesUsage: Bool

    init(_ fields: RequestFields) throws(RequestError) {
        isOn = try fields.bool("stream") ?? false
        let options = try fields.object("stream_options")
        guard isOn || options == nil else {
            throw .invalid("stream_options", "stream_options is only allowed with \"stream\": true")
        }
        if let options { try FieldTable.check(options, at: .streamOptions) }
        includesUsage = try options?.bool("include_usage") ?? false
    }
}

extension TextFinish.Reason {
    /// OpenAI's word. An abort has none: it is an error there.
    var word: String { self == .length ? "length" : "stop" }
}

extension ClientConnection {
    /// Hands on events until the last of `count` generations has ended.
    /// - Parameter showsAborts: true where an answer can say that the engine aborted it; elsewhere that is an error.
    /// - Throws: `RequestError` when one failed or the client went away. In either case, and when `handle` throws, the
    ///   others are aborted.
    @concurrent func forEach(
        of generations: TextGenerations, count: Int, showsAborts: Bool = false,
        _ handle: @concurrent (Int, TextEvent) async throws -> Void
    ) async throws {
        let watch = await onHangUp { generations.cancel() }
        defer {
            generations.cancel()
            withExtendedLifetime(watch) {}
        }
        var unfinished = count
        for await (index, event) in generations.events {
            switch event {
            case .failed(let message):
                throw RequestError(.failed, "the generation failed: \(message)", code: "generation_failed")
            case .finished(let finish):
                if finish.reason == .abort {
                    // What a client does that goes away is no fault of the engine's.
                    if generations.isCancelled { throw RequestError.clientGone }
                    guard showsAborts else {
                        throw RequestError(.unavailable, "the engine aborted this request; try again", code: "aborted")
                    }
                }
                unfinished -= 1
            case .promptScores, .token: break
            }
            try await handle(index, event)
        }
        guard unfinished == 0 else { throw RequestError.clientGone }
    }
}
