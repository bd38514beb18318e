import JSON

/// One invoke being read: a function's name and what it is called with.
struct ToolInvoke: Sendable {
    struct Parameter: Sendable {
        var name: String?
        var isString: Bool
    }

    /// `nil` if the tag had none: the invoke is broken.
    let name: String?
    let isInBlock: Bool
    /// What stands outside parameters.
    var body: [UInt8] = []
    /// The parameter whose value is being read.
    var open: Parameter?
    /// Whether arguments have been handed on before the invoke's end, and whether the open value is one of them.
    private(set) var isStreaming = false
    private(set) var isStreamingValue = false
    /// Names and values not yet handed on, the values as JSON text.
    private var parameters: [(name: String, json: String)] = []
    /// Whether a parameter without a name was read, whose value has no place.
    private var hasNameless = false

    init(name: String?, isInBlock: Bool) {
        self.name = name
        self.isInBlock = isInBlock
    }

    /// Ends a parameter.
    /// - Parameter value: all of it, or what was not yet streamed.
    /// - Returns: text of the arguments to hand on now.
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

    /// Hands on more of the open value, which is a string, and first what comes before it.
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

    /// The inside of a JSON string.
    private static func escaped(_ text: ArraySlice<UInt8>) -> String {
        String(JSONValue.string(String(decoding: text, as: UTF8.self)).pythonText.dropFirst().dropLast())
    }

    /// What is left to hand on of the JSON object of all parameters, or of the one that stands in their place; `nil` if
    /// there is something else.
    var arguments: String? {
        if hasNameless { return nil }
        if isStreaming { return "}" }
        guard parameters.isEmpty, body.contains(where: { $0 > 0x20 }) else {
            return "{" + parameters.map(Self.member).joined(separator: ", ") + "}"
        }
        guard let value = try? JSONValue(parsing: body), value.object != nil else { return nil }
        return value.pythonText
    }

    /// What stands beside the parameters and is no blank.
    var words: String? {
        guard isStreaming || !parameters.isEmpty, body.contains(where: { $0 > 0x20 }) else { return nil }
        return String(decoding: body, as: UTF8.self)
    }
}
