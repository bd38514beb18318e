import Hummingbird
import Inference
import JSON
import Tokenization

/// Handles `POST /tokenize`, for texts and conversations, and `POST /detokenize`.
struct TokenizeRoutes: Sendable {
    let configuration: ServerConfiguration
    let slot: ModelSlot

    func tokenize(_ request: Request, _ context: ServingContext) async throws -> Response {
        let service = try slot.service()
        return try await answer(request, context) { fields, share in
            try FieldTable.check(fields, at: .tokenize)
            if fields.value("messages") != nil { return try Self.tokenizeConversation(fields, service) }
            return try Self.tokenizeTexts(fields, service, share)
        }
    }

    /// Returns the tokens of `prompt`, a text or a list of texts.
    private static func tokenizeTexts(
        _ fields: RequestFields, _ service: TextService, _ share: MemoryBudget.Share
    ) throws -> [UInt8] {
        let addsBeginning = try fields.bool("add_special_tokens") ?? true
        guard let value = fields.value("prompt") else {
            throw RequestError.invalid("prompt", "prompt is missing; give a string, a list of strings, or messages")
        }
        let isList = value.array != nil
        var (tokens, counts) = (JSONWriter(), JSONWriter())
        if isList {
            tokens.beginArray()
            counts.beginArray()
        }
        for element in value.array ?? [value] {
            guard let text = element.string else {
                throw RequestError.invalid(
                    "prompt", "prompt must be a string or a list of strings, not \(element.kindName)")
            }
            let list = try service.tokens(of: text, addingBeginning: addsBeginning)
            counts.value(.integer(list.count))
            tokens.beginArray()
            for token in list { tokens.value(.integer(token)) }
            tokens.endArray()
            try share.grow(to: 2 * tokens.bytes.count)
            guard WorkPool.mayContinue else { throw RequestError.clientGone }
        }
        if isList {
            tokens.endArray()
            counts.endArray()
        }
        var writer = JSONWriter()
        writer.beginObject()
        writer.key("tokens")
        writer.written(tokens.takeBytes())
        writer.key("count")
        writer.written(counts.takeBytes())
        writer.member("max_model_len", .integer(service.engine.limits.contextLength))
        writer.endObject()
        return writer.takeBytes()
    }

    /// Returns the tokens of the prompt that a chat route makes of the same members.
    private static func tokenizeConversation(
        _ fields: RequestFields, _ service: TextService
    ) throws(RequestError) -> [UInt8] {
        guard fields.value("prompt") == nil else {
            throw .invalid("messages", "give either prompt or messages, not both")
        }
        if try fields.bool("add_special_tokens") ?? false {
            throw .invalid(
                "add_special_tokens", "add_special_tokens is not supported with messages: the chat format writes them",
                code: "unsupported_parameter")
        }
        let conversation = try ChatFields.conversation(fields)
        let prompt = try conversation.prompt(in: conversation.format(service))
        let tokens = try service.tokens(of: prompt, conversation.messagesName)
        return JSONValue.fields([
            "tokens": .array(tokens.map(JSONValue.integer)), "count": .integer(tokens.count),
            "max_model_len": .integer(service.engine.limits.contextLength),
        ]).pythonBytes
    }

    func detokenize(_ request: Request, _ context: ServingContext) async throws -> Response {
        let service = try slot.service()
        return try await answer(request, context) { fields, _ in
            try FieldTable.check(fields, at: .detokenize)
            let skipsSpecialTokens = try fields.bool("skip_special_tokens") ?? true
            guard let elements = try fields.array("tokens") else {
                throw RequestError.invalid(
                    "tokens", "tokens is missing; give a list of token ids, or a list of such lists")
            }
            let vocabulary = service.engine.limits.vocabularySize
            func text(_ ids: [JSONValue], _ path: String) throws(RequestError) -> JSONValue {
                let tokens = try RequestFields.tokens(ids, path: path, vocabularySize: vocabulary)
                guard WorkPool.mayContinue else { throw .clientGone }
                return .string(service.tokenizer.decode(tokens, skippingSpecialTokens: skipsSpecialTokens))
            }
            guard case .array = elements.first else {
                return Self.detokenized(try text(elements, "tokens"))
            }
            let texts = try elements.enumerated().map { index, element in
                guard let ids = element.array else {
                    throw RequestError.invalid("tokens", "tokens[\(index)] must be a list, not \(element.kindName)")
                }
                return try text(ids, "tokens[\(index)]")
            }
            return Self.detokenized(.array(texts))
        }
    }

    /// Returns the answer with the text, which SGLang calls `text` and vLLM `prompt`.
    private static func detokenized(_ text: JSONValue) -> [UInt8] {
        JSONValue.fields(["text": text, "prompt": text]).pythonBytes
    }

    /// Reads a request and makes its answer, as JSON text, in the work pool if the request is large.
    private func answer(
        _ request: Request, _ context: ServingContext,
        _ make: @escaping @Sendable (RequestFields, MemoryBudget.Share) throws -> [UInt8]
    ) async throws -> Response {
        let (body, share) = try await BodyReader(configuration, slot).read(request, on: context.connection) {
            (try make($0, $1), $1)
        }
        return withExtendedLifetime(share) { .json(written: body) }
    }
}
