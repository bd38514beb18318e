import Hummingbird
import JSON

/// Handles `POST /v1/chat/completions`, which answers a conversation.
struct ChatRoutes: Sendable {
    let configuration: ServerConfiguration
    let slot: ModelSlot

    func post(_ request: Request, _ context: ServingContext) async throws -> Response {
        let (configuration, connection) = (configuration, context.connection)
        let started = try await ChatStart(request, on: connection, configuration, slot, names: Self.names) {
            fields, service in
            let fields = try ChatFields(fields, service: service, configuration: configuration)
            return (try ChatRequest(fields.conversation, fields.options, service: service), fields.stream)
        }
        let (chat, generations) = (started.request, started.generations)
        let stream = ChatStream(
            chat, started.fields, service: started.service, model: configuration.servedModelName)
        guard chat.isStreamed else {
            let body = try await Self.whole(
                stream, of: generations, on: connection, bytes: chat.wantsLogProbs ? chat.memory : 0)
            withExtendedLifetime(started.share) {}
            return .json(written: body)
        }
        return .events { events in
            var stream = stream
            for event in stream.opening { try await events.send(written: event) }
            try await connection.forEach(of: generations, count: stream.count) { index, event in
                if case .waiting = event { return try await events.sendComment() }
                for event in stream.feed(event, of: index) { try await events.send(written: event) }
            }
            for event in stream.closing { try await events.send(written: event) }
            try await events.sendDone()
        }
    }

    /// The route's names of the engine's parameters.
    static let names = ["prompt": "messages", "max_new_tokens": "max_tokens"]

    /// Returns the body of an answer that is not streamed.
    ///
    /// - Parameter bytes: the approximate size of what has to be written, which decides whether `WorkPool` writes it.
    private static func whole(
        _ stream: ChatStream, of generations: TextGenerations, on connection: ClientConnection, bytes: Int
    ) async throws -> [UInt8] {
        var stream = stream
        try await connection.forEach(of: generations, count: stream.count) { index, event in
            stream.collect(event, of: index)
        }
        let answer = stream
        return try await WorkPool.shared.run(bytes: bytes) { answer.whole }
    }
}

/// The answer to a request to `/v1/chat/completions`, as the events of a stream or whole.
struct ChatStream: Sendable {
    private let envelope: Envelope
    private let stream: StreamFields
    private let thinks: Bool
    private var choices: [ChatChoice]
    private var usage: UsageTotals
    private var running: RunningUsage
    /// The member `kv_transfer_params` of a whole answer.
    private let transfer: JSONValue?

    init(_ request: ChatRequest, _ stream: StreamFields, service: TextService, model: String) {
        envelope = Envelope(
            prefix: "chatcmpl-", object: stream.isOn ? "chat.completion.chunk" : "chat.completion", model: model)
        self.stream = stream
        thinks = request.separatesReasoning
        choices = request.requests.indices.map { ChatChoice(request, index: $0, service: service) }
        usage = UsageTotals(choicesPerPrompt: choices.count)
        running = RunningUsage(request.requests)
        transfer = service.transfers?.answer(to: request.requests.first?.transferParams, id: envelope.id)
    }

    /// The number of choices.
    var count: Int { choices.count }

    /// The events at the beginning, as JSON text.
    var opening: [[UInt8]] {
        choices.enumerated().map { index, choice in envelope.chunk(choice.opening, stream, running.json(of: index)) }
    }

    /// Adds an event of a choice, and returns the events that it makes in the stream, as JSON text.
    mutating func feed(_ event: TextEvent, of index: Int) -> [[UInt8]] {
        let pieces = choices[index].feed(event)
        count(event, of: index)
        running.add(event, of: index)
        return pieces.map { envelope.chunk($0, stream, running.json(of: index)) }
    }

    /// The events at the end, as JSON text.
    var closing: [[UInt8]] { stream.includesUsage ? [envelope.body(choices: [], usage: usage.json)] : [] }

    /// Adds an event of a choice to an answer that is sent whole.
    mutating func collect(_ event: TextEvent, of index: Int) {
        choices[index].collect(event)
        count(event, of: index)
    }

    /// The whole answer, as JSON text.
    var whole: [UInt8] { envelope.body(choices: choices.map(\.whole), usage: usage.json, transfer: transfer) }

    private mutating func count(_ event: TextEvent, of index: Int) {
        guard case .finished(let finish) = event else { return }
        usage.add(finish, of: index, reasoningTokens: thinks ? choices[index].reasoningTokens : nil)
    }
}

/// A request of a dialect of the chat route whose generations have begun.
struct ChatStart<Fields: Sendable>: Sendable {
    let service: TextService
    let request: ChatRequest
    /// The members of the request that matter for the form of the answer.
    let fields: Fields
    let generations: TextGenerations
    /// The request's share of the memory budget, which is kept until an answer that is sent whole is complete.
    let share: MemoryBudget.Share
    /// True if the answer repeats members of the request, so that streams keep the share too.
    let repeatsRequest: Bool

    /// Reads a request and begins to answer it.
    ///
    /// - Parameters:
    ///   - names: the dialect's names of the engine's parameters.
    ///   - repeatsRequest: whether the answer repeats members of the request, whose memory then counts until its end.
    ///   - read: reads the members of the request.
    init(
        _ request: Request, on connection: ClientConnection, _ configuration: ServerConfiguration, _ slot: ModelSlot,
        names: [String: String], repeatsRequest: Bool = false,
        read: @escaping @Sendable (RequestFields, TextService) throws -> (ChatRequest, Fields)
    ) async throws {
        let service = try slot.service()
        self.service = service
        self.repeatsRequest = repeatsRequest
        let asked = try await BodyReader(configuration, slot).read(request, on: connection) { fields, share in
            let (chat, more) = try read(fields, service)
            if repeatsRequest { try share.grow(to: chat.memory) } else { try share.resize(to: chat.memory) }
            return (chat: chat, fields: more, share: share)
        }
        (self.request, fields, share) = (asked.chat, asked.fields, asked.share)
        generations = try await service.start(
            asked.chat.requests, names: names, slot: slot, on: connection,
            waitingEvery: asked.chat.isStreamed ? configuration.keepAliveInterval : nil)
    }
}
