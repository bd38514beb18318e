import JSON

/// Reads contents that clients send as a text or as a list of parts, in the chat route and in `/v1/responses`.
enum ContentParts {
    /// Returns the text of a member, whose parts are joined without separators; `nil` if the member is absent.
    static func text(_ fields: RequestFields, _ name: String) throws(RequestError) -> String? {
        guard let value = fields.value(name) else { return nil }
        if let text = value.string { return text }
        let path = fields.path(of: name)
        guard let parts = value.array else {
            throw .invalid(path, "\(path) must be a text or a list of text parts, not \(value.kindName)")
        }
        var text = ""
        for (index, part) in parts.enumerated() { text += try Self.text(of: part, "\(path)[\(index)]") }
        return text
    }

    /// Returns the text of a part. What an assistant said instead of an answer (`refusal`) is text, too.
    private static func text(of part: JSONValue, _ path: String) throws(RequestError) -> String {
        if let text = part.string { return text }
        let part = try RequestFields(part, path: path)
        let name = part.path(of: "type")
        switch try part.string("type") {
        case "text", "input_text", "output_text": return try part.requiredString("text")
        case "refusal": return try part.requiredString("refusal")
        case nil: throw .invalid(name, "\(name) is missing; \(known)")
        case let type?:
            let reason =
                media.first { type.contains($0.word) }.map { "this model reads text only; leave \($0.name) out" }
                ?? known
            throw .invalid(
                name, "\(name) is \(type.quotedForMessage), which is not supported: \(reason)",
                code: "unsupported_content")
        }
    }

    private static let known = "use text, input_text, output_text or refusal"
    /// The words in the types of parts that are no text, and what the parts are.
    private static let media = [("image", "images"), ("audio", "audio"), ("video", "videos"), ("file", "files")]
        .map { (word: $0.0, name: $0.1) }
}
