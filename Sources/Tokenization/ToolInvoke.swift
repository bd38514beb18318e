import JSON

/// An invoke element of a tool call that is being parsed: the name of a function and its arguments.
struct ToolInvoke: Sendable {
    struct Parameter: Sendable {
        var name: String?
        var isString: Bool
    }

    /// The name of the function; `nil` if the tag has none, so that the invoke is malformed.
    let name: String?
    let isInBlock: Bool
    /// The text outside parameters.
    var body: [UInt8] = []
    /// The parameter whose value is being read.
    var open: Parameter?
    /// Whether arguments were returned before the end of the invoke.
    private(set) var isStreaming = false
    /// Whether a part of the open value was returned.
    private(set) var isStreamingValue = false
    /// The names and values that were not returned yet; values are JSON text.
    private var parameters: [(name: String, json: String)] = []
    /// Whether a parameter without a name was read, which cannot be part of the arguments.
    private var hasNameless = false

    init(name: String?, isInBlock: Bool) {
        self.name = name
        self.isInBlock = isInBlock
    }

    /// Ends a parameter.
    ///
    /// - Parameter value: the value, or the part of it that was not streamed yet.
    /// - Returns: the text of the arguments to stream now.
    mutating func close(_ parameter: Parameter, value: ArraySlice<UInt8>) -> String {
        defer { (open, isStreamingValue) = (nil, false) }
        guard let name = parameter.name else {
            hasNameless = true
            return ""
        }
        if isStreamingValue { return Self.escaped(value) + "\"" }
        let text = String(decoding: value, as: UTF8.self)
        let isJSON = !parameter.isString && (try? JSONValue(parsing: text)) != nil
        let json = isJSON ? text : JSONValue.string(text).pythonText
        if isStreaming { return ", " + JSONValue.string(name).pythonText + ": " + json }
        if let place = parameters.firstIndex(where: { $0.name.utf8.elementsEqual(name.utf8) }) {
            parameters[place].json = json
        } else {
            parameters.append((name, json))
        }
        return ""
    }

    /// Returns the text of the arguments to stream for a piece of the open value, which is a string. With the first
    /// piece it includes the arguments before it.
    mutating func stream(_ parameter: Parameter, _ piece: ArraySlice<UInt8>) -> String {
        var text = ""
        if !isStreamingValue {
            let before = isStreaming ? ", " : "{" + parameters.map { Self.member($0) + ", " }.joined()
            text = before + JSONValue.string(parameter.name ?? "").pythonText + ": \""
            (isStreaming, isStreamingValue, parameters) = (true, true, [])
        }
        return text + Self.escaped(piece)
    }

    private static func member(_ parameter: (name: String, json: String)) -> String {
        JSONValue.string(parameter.name).pythonText + ": " + parameter.json
    }

    /// Returns text as a JSON string without its quotes.
    private static func escaped(_ text: ArraySlice<UInt8>) -> String {
        String(JSONValue.string(String(decoding: text, as: UTF8.self)).pythonText.dropFirst().dropLast())
    }

    /// The rest of the arguments that was not streamed: the JSON object of all parameters, or the object that the
    /// invoke contains instead of parameters. It is `nil` if the invoke is malformed.
    var arguments: String? {
        if hasNameless { return nil }
        if isStreaming { return "}" }
        guard parameters.isEmpty, body.contains(where: { $0 > 0x20 }) else {
            return "{" + parameters.map(Self.member).joined(separator: ", ") + "}"
        }
        guard let value = try? JSONValue(parsing: body), value.object != nil else { return nil }
        return value.pythonText
    }

    /// The text beside parameters; `nil` if it is blank.
    var words: String? {
        guard isStreaming || !parameters.isEmpty, body.contains(where: { $0 > 0x20 }) else { return nil }
        return String(decoding: body, as: UTF8.self)
    }
}
