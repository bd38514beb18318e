/// This parser extracts server-sent events from bytes that arrive in arbitrary pieces (WHATWG HTML, section 9.2.6).
///
/// Only `data` is kept; comments and other fields are skipped. An event that no empty line has ended is incomplete and
/// not returned.
package struct ServerSentEvents: Sendable {
    private var line: [UInt8] = []
    private var data: [UInt8] = []
    private var hasData = false
    private var lastWasReturn = false
    private let limit: Int

    /// - Parameter limit: The largest number of bytes in one event.
    package init(limit: Int = 64 << 20) { self.limit = limit }

    /// Adds bytes of the stream.
    ///
    /// - Returns: The data of the events that are complete now.
    /// - Throws: `CommandError` if an event is larger than the limit.
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

    /// Ends a line.
    ///
    /// - Returns: An event, if the line is the empty one that ends it.
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
