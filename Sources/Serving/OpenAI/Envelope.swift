import Foundation
import JSON

/// The members that all chunks of one answer repeat: its id, its kind, the model, and the time.
struct Envelope: Sendable {
    let id: String
    let created: Int
    let model: String
    /// The member `object`, which names the kind of the answer.
    let object: String

    init(prefix: String, object: String, model: String) {
        id = prefix + Self.randomDigits()
        created = Int(Date().timeIntervalSince1970)
        self.model = model
        self.object = object
    }

    /// Returns an answer or a chunk as JSON text.
    ///
    /// - Parameters:
    ///   - choices: the JSON text of each choice.
    ///   - usage: the member `usage`; `nil` for an answer without that member.
    ///   - transfer: the member `kv_transfer_params`; `nil` for an answer without it.
    func body(choices: [[UInt8]], usage: JSONValue? = nil, transfer: JSONValue? = nil) -> [UInt8] {
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
        if let transfer { writer.member(KVTransferParams.name, transfer) }
        writer.endObject()
        return writer.takeBytes()
    }

    /// Returns a chunk of a stream. If the stream will end with its usage, earlier chunks have `"usage": null`, or what
    /// their choice has used so far.
    ///
    /// - Parameter usage: the usage of the choice so far.
    func chunk(_ choice: [UInt8], _ stream: StreamFields, _ usage: @autoclosure () -> JSONValue) -> [UInt8] {
        guard stream.includesUsage else { return body(choices: [choice]) }
        return body(choices: [choice], usage: stream.isUsageContinuous ? usage() : .null)
    }

    /// Returns 32 random hexadecimal digits, which cannot be predicted.
    static func randomDigits() -> String {
        (0..<2).map { _ in
            let digits = String(UInt64.random(in: .min ... .max), radix: 16)
            return String(repeating: "0", count: 16 - digits.count) + digits
        }.joined()
    }
}

/// The sums of the token counts of a request's choices. Each prompt counts once, however many choices it has.
struct UsageTotals {
    private let choicesPerPrompt: Int
    private var promptTokens = 0
    private var completionTokens = 0
    private var cachedTokens: Int?
    private var reasoningTokens: Int?

    init(choicesPerPrompt: Int) {
        self.choicesPerPrompt = choicesPerPrompt
    }

    /// Adds the counts of choice `index`.
    ///
    /// - Parameter reasoningTokens: the tokens of reasoning; `nil` if reasoning is not separated.
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

/// The token counts of each choice of a stream so far.
struct RunningUsage {
    private let promptTokens: [Int]
    private var completionTokens: [Int]

    init(_ requests: [TextRequest]) {
        promptTokens = requests.map(\.prompt.count)
        completionTokens = requests.map { _ in 0 }
    }

    /// Adds an event of choice `index`.
    mutating func add(_ event: TextEvent, of index: Int) {
        switch event {
        case .token: completionTokens[index] += 1
        case .finished(let finish): completionTokens[index] = finish.completionTokens
        case .started, .promptScores, .waiting, .failed: break
        }
    }

    /// Returns the member `usage` of a chunk of choice `index`.
    func json(of index: Int) -> JSONValue {
        let (prompt, completion) = (promptTokens[index], completionTokens[index])
        return .fields([
            "prompt_tokens": .integer(prompt), "completion_tokens": .integer(completion),
            "total_tokens": .integer(prompt + completion),
        ])
    }
}

/// The members `stream` and `stream_options`, which both OpenAI routes share.
struct StreamFields: Sendable {
    let isOn: Bool
    let includesUsage: Bool
    /// True if every chunk says what its choice has used so far, as vLLM does.
    let isUsageContinuous: Bool

    init(_ fields: RequestFields) throws(RequestError) {
        isOn = try fields.bool("stream") ?? false
        let options = try fields.object("stream_options")
        guard isOn || options == nil else {
            throw .invalid("stream_options", "stream_options is only allowed with \"stream\": true")
        }
        if let options { try FieldTable.check(options, at: .streamOptions) }
        includesUsage = try options?.bool("include_usage") ?? false
        isUsageContinuous = try options?.bool("continuous_usage_stats") ?? false
    }
}

extension TextFinish.Reason {
    /// OpenAI's name of the reason; for an abort, which OpenAI does not know, SGLang's and vLLM's.
    var word: String {
        switch self {
        case .stopToken, .stopString: "stop"
        case .length: "length"
        case .abort: "abort"
        }
    }

    /// True if the answer ended before the model had ended it.
    var isCut: Bool { self == .length || self == .abort }
}

extension TextGenerations {
    /// Calls `handle` with each event until the last of `count` generations has ended.
    ///
    /// - Throws: `RequestError` if a generation failed or the client disconnected.
    @concurrent func forEach(
        count: Int, _ handle: @concurrent (Int, TextEvent) async throws -> Void
    ) async throws {
        var unfinished = count
        for await (index, event) in events {
            switch event {
            case .failed(let message):
                throw RequestError(.failed, "the generation failed: \(message)", code: "generation_failed")
            case .finished(let finish):
                // An abort follows from the client's disconnecting, or from another request, which asked for it.
                if finish.reason == .abort, isCancelled { throw RequestError.clientGone }
                unfinished -= 1
            case .started, .promptScores, .token, .waiting: break
            }
            try await handle(index, event)
        }
        guard unfinished == 0 else { throw RequestError.clientGone }
    }
}

extension ClientConnection {
    /// Calls `handle` with each event until the last of `count` generations has ended.
    ///
    /// - Throws: `RequestError` if a generation failed or the client disconnected. In either case, and when `handle`
    ///   throws, the other generations are aborted.
    @concurrent func forEach(
        of generations: TextGenerations, count: Int, _ handle: @concurrent (Int, TextEvent) async throws -> Void
    ) async throws {
        let watch = await onHangUp { generations.cancel() }
        defer {
            generations.cancel()
            withExtendedLifetime(watch) {}
        }
        try await generations.forEach(count: count, handle)
    }
}
