import JSON

extension Target {
    /// JSON text: what is accepted is written and read again as the same value.
    static func json(_ bytes: [UInt8]) -> CInt {
        guard let value = try? JSONValue(parsing: bytes) else { return 0 }
        guard let again = try? JSONValue(parsing: value.pythonBytes) else { fatalError("what was written is no JSON") }
        precondition(again.pythonBytes == value.pythonBytes, "what was written is another value")
        return 0
    }
}
