import Foundation
import Serving

/// A server address names a server, as `http://host:port/prefix`.
package struct ServerAddress: Sendable, Hashable, CustomStringConvertible {
    package let host: String
    package let port: Int
    /// The beginning of every path; empty, or with a slash at its beginning only.
    package let prefix: String

    package init(host: String, port: Int) {
        self.host = host
        self.port = port
        prefix = ""
    }

    /// The reason why a text is no address of a server, and what to write.
    package struct Problem: Error, CustomStringConvertible {
        package let description: String
    }

    /// Reads a URL, of which a `/v1` at the end is left out.
    ///
    /// - Throws: `Problem` unless `url` is an http URL with a host.
    package init(_ url: String) throws(Problem) {
        guard let parts = URLComponents(string: url), let host = parts.host, Self.isHost(host) else {
            throw Problem(description: "'\(url)' is not a URL; write for example http://127.0.0.1:30000")
        }
        guard parts.scheme == "http" else {
            throw Problem(
                description: "'\(url)' does not begin with http://, the one scheme spoken here; for a server "
                    + "behind TLS forward its port, such as ssh -L 30000:127.0.0.1:30000 HOST")
        }
        guard (1...65_535).contains(parts.port ?? 80) else {
            throw Problem(description: "'\(url)': there is no port \(parts.port ?? 0); ports are 1 to 65535")
        }
        // An IPv6 address has brackets in a URL and nowhere else.
        self.host = host.hasPrefix("[") ? String(host.dropFirst().dropLast()) : host
        port = parts.port ?? 80
        var prefix = parts.percentEncodedPath
        while prefix.hasSuffix("/") { prefix.removeLast() }
        // Clients of OpenAI's routes are given the address with this; here every path has its own.
        if prefix.hasSuffix("/v1") { prefix.removeLast(3) }
        while prefix.hasSuffix("/") { prefix.removeLast() }
        self.prefix = prefix
    }

    /// Returns whether a text can be a host. It becomes a header, so that it must not contain a line break.
    private static func isHost(_ text: String) -> Bool {
        !text.isEmpty && text.utf8.allSatisfy { (0x21...0x7E).contains($0) }
    }

    /// Tells whether the server is on this machine.
    package var isHere: Bool { Loopback.contains(host) }

    /// The value of the Host header.
    package var authority: String { (host.contains(":") ? "[\(host)]" : host) + ":\(port)" }

    package var description: String { "http://\(authority)\(prefix)" }
}
