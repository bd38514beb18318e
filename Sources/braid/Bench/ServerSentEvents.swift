/// Takes server-sent events out of bytes that arrive in arbitrary pieces (WHATWG HTML, section 9.2.6).
///
/// Only `data` is kept; comments and other fields are skipped. An event that was not ended by an empty line is no event.
package struct ServerSentEvents: Sendable {
    private var line: [UInt8] = []
    private var data: [UInt8] = []
    private var hasData = false
    private var lastWasReturn = false
    private let limit: Int

    /// - Parameter limit: bytes of one event, at most.
    package init(limit: Int = 64 << 20) { self.limit = limit }

    /// - Returns: the data of the events that are complete now.
    /// - Throws: `CommandError` for an event that is larger than the limit.
    package mutating func take(_ bytes: some Sequence<UInt8>) throws -> [[UInt8]] {
        var events: [[UInt8]] = []
        for byte in bytes {
            defer { lastWasReturn = byte == UInt8(ascii: "\r") }
            switch byte {
            case UInt8(ascii: "\n") where lastWasReturn: continue
            case UInt8(ascii: "\n"), UInt8(ascii: "\r"):
                if let event = endLine() { events.append(event) }
            default:
                guard line.count + data.count < limit else {
                    throw CommandError("the server sent an event of more than \(limit) bytes")
                }
                line.append(byte)
            }
        }
        return events
    }

    /// - Returns: an event, if the line was the empty one that ends it.
    private mutating func endLine() -> [UInt8]? {
        defer { line.removeAll(keepingCapacity: true) }
        if line.isEmpty {
            defer { (data, hasData) = ([], false) }
            return hasData ? data : nil
        }
        let name = line.prefix { $0 != UInt8(ascii: ":") }
        guard name.elementsEqual("data".utf8) else { return nil }
        var value = line.dropFirst(name.count + 1)
        if value.first == UInt8(ascii: " ") { value = value.dropFirst() }
        if hasData { data.append(UInt8(ascii: "\n")) }
        data += value
        hasData = true
        return nil
    }
}
