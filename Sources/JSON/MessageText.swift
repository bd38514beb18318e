extension String {
    /// The string in quotes, without control characters and with at most 120 characters, so that it is safe to log.
    package var quotedForMessage: String {
        var quoted = "\""
        for (count, scalar) in unicodeScalars.enumerated() {
            if count == 120 { return quoted + "\"…" }
            if scalar.isControl || scalar == "\"" || scalar == "\\" {
                quoted += scalar.escaped(asASCII: true)
            } else {
                quoted.unicodeScalars.append(scalar)
            }
        }
        return quoted + "\""
    }

    /// True if a character of the string would affect a terminal or end a C string.
    package var hasControlCharacters: Bool { unicodeScalars.contains { $0.isControl } }
}

extension Unicode.Scalar {
    fileprivate var isControl: Bool { value < 0x20 || (0x7F...0x9F).contains(value) }
}
