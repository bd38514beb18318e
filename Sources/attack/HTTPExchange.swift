import Foundation
import JSON

/// Reads the responses on a connection, and refuses everything that is not exactly HTTP/1.1 (RFC 9112).
final class HTTPExchange {
    /// The reason why no further response can be read.
    enum Failure: Error, CustomStringConvertible {
        /// The connection ended before the first byte of a response.
        case closed
        /// The connection ended within a response.
        case cut
        case timeout
        case malformed(String)

        var description: String {
            switch self {
            case .closed: "the connection was closed without a response"
            case .cut: "the connection was closed within a response"
            case .timeout: "no response in time"
            case .malformed(let problem): "the response is no HTTP: \(problem)"
            }
        }
    }

    struct Head {
        var status: Int
        var fields: [(name: String, value: String)]

        subscript(name: String) -> String? { fields.first { $0.name == name }?.value }

        var closes: Bool { self["connection"]?.lowercased() == "close" }
    }

    struct Reply {
        var head: Head
        var body: [UInt8]
        var status: Int { head.status }
        var text: String { String(decoding: body, as: UTF8.self) }
        var json: JSONValue? { try? JSONValue(parsing: body) }
    }

    let socket: RawSocket
    private var buffer: [UInt8] = []
    private var position = 0
    private var body = Body.none

    private enum Body {
        case none
        case bytes(Int)
        case chunks
        case untilEnd
    }

    init(_ socket: RawSocket) { self.socket = socket }

    convenience init(port: Int) throws(RawSocket.ConnectFailure) { self.init(try RawSocket(port: port)) }

    /// Sends a request with a JSON body.
    @discardableResult
    func send(_ method: String, _ path: String, _ body: [UInt8]? = nil, headers: String = "") -> Bool {
        var head = "\(method) \(path) HTTP/1.1\r\nHost: localhost\r\n\(headers)"
        if let body { head += "Content-Type: application/json\r\nContent-Length: \(body.count)\r\n" }
        return socket.send(Array((head + "\r\n").utf8) + (body ?? []))
    }

    /// Reads the next response with its whole body.
    func reply(toHead: Bool = false, within limit: Duration) throws(Failure) -> Reply {
        let deadline = ContinuousClock.now + limit
        let head = try head(toHead: toHead, until: deadline)
        var whole: [UInt8] = []
        while let part = try bodyPart(until: deadline) { whole += part }
        return Reply(head: head, body: whole)
    }

    /// Reads the status line and header fields of the next response; informational responses are passed over.
    func head(toHead: Bool = false, until deadline: ContinuousClock.Instant) throws(Failure) -> Head {
        while true {
            let head = try oneHead(until: deadline)
            if (100..<200).contains(head.status) { continue }
            body = try toHead || head.status == 204 || head.status == 304 ? .none : bodyKind(head)
            return head
        }
    }

    /// Reads the next part of the body; `nil` at its end.
    func bodyPart(until deadline: ContinuousClock.Instant) throws(Failure) -> [UInt8]? {
        switch body {
        case .none: return nil
        case .bytes(0):
            body = .none
            return nil
        case .bytes(let left):
            if position == buffer.count { guard try fill(until: deadline) else { throw .cut } }
            let part = Array(buffer[position..<min(buffer.count, position + left)])
            position += part.count
            body = .bytes(left - part.count)
            return part
        case .untilEnd:
            if position == buffer.count, try !fill(until: deadline) {
                body = .none
                return nil
            }
            defer { position = buffer.count }
            return Array(buffer[position...])
        case .chunks: return try chunk(until: deadline)
        }
    }

    /// Returns once the server has closed the connection.
    ///
    /// - Throws: if it does not until `deadline`, or sends something.
    func end(until deadline: ContinuousClock.Instant) throws(Failure) {
        guard position == buffer.count else {
            throw .malformed("bytes follow the last response: \(Self.shown(buffer[position...]))")
        }
        if try fill(until: deadline) {
            throw .malformed("bytes follow the last response: \(Self.shown(buffer[position...]))")
        }
    }

    private func chunk(until deadline: ContinuousClock.Instant) throws(Failure) -> [UInt8]? {
        let line = try line(until: deadline, isFirst: false)
        guard let size = Int(line, radix: 16), size >= 0, size < 1 << 30 else {
            throw .malformed("chunk size \(line.debugDescription)")
        }
        var part: [UInt8] = []
        while part.count < size {
            if position == buffer.count { guard try fill(until: deadline) else { throw .cut } }
            let piece = buffer[position..<min(buffer.count, position + size - part.count)]
            part += piece
            position += piece.count
        }
        guard try self.line(until: deadline, isFirst: false).isEmpty else {
            throw .malformed("no line end after a chunk")
        }
        if size > 0 { return part }
        body = .none
        return nil
    }

    private func oneHead(until deadline: ContinuousClock.Instant) throws(Failure) -> Head {
        let first = try line(until: deadline, isFirst: true)
        let words = first.split(separator: " ", maxSplits: 2, omittingEmptySubsequences: false)
        guard words.count >= 2, words[0] == "HTTP/1.1" || words[0] == "HTTP/1.0", words[1].utf8.count == 3,
            let status = Int(words[1])
        else { throw .malformed("status line \(first.prefix(200).debugDescription)") }
        var fields: [(String, String)] = []
        while true {
            let line = try line(until: deadline, isFirst: false)
            if line.isEmpty { return Head(status: status, fields: fields) }
            guard let colon = line.firstIndex(of: ":") else {
                throw .malformed("header line \(line.prefix(200).debugDescription)")
            }
            fields.append(
                (
                    line[..<colon].lowercased(),
                    line[line.index(after: colon)...].trimmingCharacters(in: .whitespaces)
                ))
        }
    }

    private func bodyKind(_ head: Head) throws(Failure) -> Body {
        let (coding, length) = (head["transfer-encoding"], head["content-length"])
        if let coding {
            guard coding == "chunked", length == nil else { throw .malformed("transfer-encoding \(coding)") }
            return .chunks
        }
        guard let length else { return .untilEnd }
        guard let count = Int(length), count >= 0 else { throw .malformed("content-length \(length)") }
        return .bytes(count)
    }

    /// Reads a line without its end, CR LF.
    private func line(until deadline: ContinuousClock.Instant, isFirst: Bool) throws(Failure) -> String {
        while true {
            if let end = buffer[position...].firstIndex(of: UInt8(ascii: "\n")) {
                guard end > position, buffer[end - 1] == UInt8(ascii: "\r") else {
                    throw .malformed("line end \(Self.shown(buffer[position...end]))")
                }
                defer { position = end + 1 }
                return String(decoding: buffer[position..<end - 1], as: UTF8.self)
            }
            let isClean = isFirst && position == buffer.count
            guard try fill(until: deadline) else { throw isClean ? .closed : .cut }
        }
    }

    /// Reads more bytes; returns false at the end of the connection.
    private func fill(until deadline: ContinuousClock.Instant) throws(Failure) -> Bool {
        if position > 1 << 16 {
            buffer.removeFirst(position)
            position = 0
        }
        switch socket.receive(until: deadline) {
        case .bytes(let bytes):
            buffer += bytes
            return true
        case .end: return false
        case .timeout: throw .timeout
        }
    }

    private static func shown(_ bytes: some Collection<UInt8>) -> String {
        String(decoding: bytes.prefix(120), as: UTF8.self).debugDescription
    }
}
