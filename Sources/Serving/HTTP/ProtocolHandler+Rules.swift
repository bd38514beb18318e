import Foundation
import NIOHTTP1

extension ProtocolHandler {
    /// Returns the reason to refuse a request by its header; `nil` if it is valid.
    static func problem(with head: HTTPRequestHead) -> (status: HTTPResponseStatus, message: String)? {
        let hosts = head.headers["host"]
        guard hosts.count == 1 || hosts.isEmpty && head.version == .http1_0 else {
            return (.badRequest, "a request has one Host field; this one has \(hosts.count)")
        }
        if case .invalid = target(of: head) {
            return (.badRequest, "the request is for '\(head.uri.prefix(64))', which is no path of this server")
        }
        let codings = tokens(head.headers["transfer-encoding"])
        let lengths = tokens(head.headers["content-length"])
        if !codings.isEmpty {
            guard codings == ["chunked"], head.version != .http1_0 else {
                return (.badRequest, "Transfer-Encoding may only be 'chunked'; send the body as it is")
            }
            guard lengths.isEmpty else {
                return (.badRequest, "Transfer-Encoding and Content-Length exclude each other")
            }
        }
        guard let length = lengths.first else { return nil }
        guard Set(lengths).count == 1, length.utf8.allSatisfy({ (0x30...0x39).contains($0) }), Int(length) != nil else {
            return (.badRequest, "Content-Length is no length: '\(lengths.joined(separator: ", ").prefix(64))'")
        }
        return nil
    }

    /// Brings a valid header into the form that the layers above expect.
    ///
    /// - Returns: whether the connection ends after the response.
    static func normalize(_ head: inout HTTPRequestHead) -> Bool {
        if case .absolute(let authority, let path) = target(of: head) {
            // The host of the target counts, whatever the field says (RFC 9112, section 3.2.2).
            head.uri = path
            head.headers.replaceOrAdd(name: "host", value: authority)
        }
        // A client of HTTP/1.0 does not know status 100 (RFC 9110, section 10.1.1).
        if head.version == .http1_0 { head.headers.remove(name: "expect") }
        let options = tokens(head.headers["connection"])
        // The decoder reads nothing after a request for another protocol, which is answered as any other one.
        let closes =
            head.version == .http1_0 || options.contains("close")
            || options.contains("upgrade") && head.headers.contains(name: "upgrade")
        // The layer above recognizes only this spelling.
        if closes { head.headers.replaceOrAdd(name: "connection", value: "close") }
        return closes
    }

    /// What a request asks for.
    private enum Target {
        /// A path, or `*` for the server itself.
        case path
        /// A path of the named server, as clients write it for a proxy.
        case absolute(authority: String, path: String)
        case invalid
    }

    private static func target(of head: HTTPRequestHead) -> Target {
        let uri = head.uri
        if uri.hasPrefix("/") || uri == "*" { return .path }
        guard let mark = uri.firstRange(of: "://") else { return .invalid }
        guard ["http", "https"].contains(uri[..<mark.lowerBound].lowercased()) else { return .invalid }
        let authority = uri[mark.upperBound...].prefix { $0 != "/" && $0 != "?" }
        // A name and a password have no place in a request (RFC 9110, section 4.2.4).
        guard !authority.isEmpty, !authority.contains("@") else { return .invalid }
        let path = uri[authority.endIndex...]
        return .absolute(authority: String(authority), path: path.hasPrefix("/") ? String(path) : "/" + path)
    }

    /// Returns the elements of a list that may be spread over several fields, in lower case.
    private static func tokens(_ fields: [String]) -> [String] {
        fields.flatMap { $0.split(separator: ",", omittingEmptySubsequences: false) }
            .map { $0.trimmingCharacters(in: .whitespaces).lowercased() }
    }
}
