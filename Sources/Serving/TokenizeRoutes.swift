import Hummingbird
import Inference
import JSON
import Tokenization

/// `POST /tokenize` and `/detokenize`.
struct TokenizeRoutes: Sendable {
    let configuration: ServerConfiguration
    let slot: ModelSlot

    func tokenize(_ request: Request, _ context: ServingContext) async throws -> Response {
        let service = try slot.service()
        let fields = try await BodyReader(configuration).fields(of: request)
        let addsBeginning = try fields.bool("add_special_tokens") ?? true
        guard let value = fields.value("prompt") else {
            throw RequestError.invalid("prompt", "prompt is missing; give a string or a list of strings")
        }
        let texts = value.array ?? [value]
        let lists = try texts.map { element in
            guard let text = element.string else {
                throw RequestError.invalid(
                    "prompt", "prompt must be a string or a list of strings, not \(element.kindName)")
            }
            return service.tokens(of: text, addingBeginning: addsBeginning)
        }
        let isList = value.array != nil
        let tokens = lists.map { JSONValue.array($0.map(JSONValue.integer)) }
        let counts = lists.map { JSONValue.integer($0.count) }
        return .json(
            .fields([
                "tokens": isList ? .array(tokens) : tokens[0], "count": isList ? .array(counts) : counts[0],
                "max_model_len": .integer(service.engine.limits.contextLength),
            ]))
    }

    func detokenize(_ request: Request, _ context: ServingContext) async throws -> Response {
        let service = try slot.service()
        let fields = try await BodyReader(configuration).fields(of: request)
        let skipsSpecialTokens = try fields.bool("skip_special_tokens") ?? true
        guard let elements = try fields.array("tokens") else {
            throw RequestError.invalid("tokens", "tokens is missing; give a list of token ids, or a list of such lists")
        }
        let vocabulary = service.engine.limits.vocabularySize
        func text(_ ids: [JSONValue], _ path: String) throws(RequestError) -> JSONValue {
            let tokens = try RequestFields.tokens(ids, path: path, vocabularySize: vocabulary)
            return .string(service.tokenizer.decode(tokens, skippingSpecialTokens: skipsSpecialTokens))
        }
        guard case .array = elements.first else {
            return .json(.fields(["text": try text(elements, "tokens")]))
        }
        let texts = try elements.enumerated().map { index, element in
            guard let ids = element.array else {
                throw RequestError.invalid("tokens", "tokens[\(index)] must be a list, not \(element.kindName)")
            }
            return try text(ids, "tokens[\(index)]")
        }
        return .json(.fields(["text": .array(texts)]))
    }
}
