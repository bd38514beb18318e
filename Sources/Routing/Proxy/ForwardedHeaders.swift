package import HTTPTypes
import Hummingbird
package import NIOHTTP1

/// The header fields that pass between client and worker. Those that belong to one connection do not
/// (RFC 9110, section 7.6.1).
package enum ForwardedHeaders {
    private static let ofConnection: Set<String> = [
        "connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "te", "trailer",
        "transfer-encoding", "upgrade",
    ]
    /// What is said anew to a worker: the router has read the whole body, and has checked where the page that asks
    /// comes from, which the worker would compare with its own address.
    private static let ofRequest: Set<String> = ["host", "content-length", "expect", "origin"]
    /// What the router's own HTTP server says.
    private static let ofAnswer: Set<String> = ["date", "server"]

    /// Returns the header of a request to a worker.
    ///
    /// - Parameter key: the key that the worker gets in place of the client's; `nil` passes the client's on.
    package static func request(
        _ fields: HTTPFields, to address: ServerAddress, bodyBytes: Int, key: String?
    ) -> HTTPHeaders {
        var headers: HTTPHeaders = ["host": address.authority, "connection": "close"]
        if bodyBytes > 0 { headers.add(name: "content-length", value: String(bodyBytes)) }
        if let key { headers.add(name: "authorization", value: "Bearer \(key)") }
        let named = names(fields.lazy.filter { $0.name == .connection }.map(\.value))
        for field in fields {
            let name = field.name.canonicalName
            if ofConnection.contains(name) || ofRequest.contains(name) || named.contains(name) { continue }
            if key != nil, name == "authorization" || name == "x-api-key" { continue }
            headers.add(name: field.name.rawName, value: field.value)
        }
        return headers
    }

    /// Returns the header of an answer to the client.
    package static func answer(_ headers: HTTPHeaders) -> HTTPFields {
        let named = names(headers["connection"])
        var fields = HTTPFields()
        for (name, value) in headers {
            let lower = name.lowercased()
            if ofConnection.contains(lower) || ofAnswer.contains(lower) || named.contains(lower) { continue }
            // Names of pages that may read an answer are the router's to give.
            if lower.hasPrefix("access-control-") { continue }
            guard let field = HTTPField.Name(name) else { continue }
            fields.append(HTTPField(name: field, value: value))
        }
        return fields
    }

    /// Returns the names in the values of `Connection`, in lower case.
    private static func names(_ values: some Sequence<String>) -> Set<String> {
        Set(
            values.flatMap { $0.split(separator: ",") }.map {
                $0.filter { !$0.isWhitespace }.lowercased()
            })
    }
}
