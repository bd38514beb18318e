import Connections
import Foundation
package import JSON
import NIOCore
import NIOHTTP1
import NIOPosix
package import Routing

extension ServerAddress {
    /// - Parameter option: The option that gives the URL, for errors.
    /// - Throws: `CommandError` unless `url` is an http URL with a host.
    package init(url: String, option: String = "--base-url") throws {
        do {
            self = try ServerAddress(url)
        } catch {
            throw CommandError("\(option): \(error)")
        }
    }

    /// Returns the key to send: the given one, or that of the environment. `OPENAI_API_KEY` belongs to another service, and
    /// http does not protect it, so that only a server on this machine gets it.
    func apiKey(_ given: String?) -> String? {
        let environment = ProcessInfo.processInfo.environment
        return given ?? environment["BRAID_API_KEY"] ?? (isHere ? environment["OPENAI_API_KEY"] : nil)
    }
}

/// A minimal HTTP/1.1 client: it opens a connection for each request, and knows neither TLS nor redirects.
package struct HTTPClient: Sendable {
    package let address: ServerAddress
    /// The key that is sent as a bearer token; `nil` sends none.
    private let apiKey: String?
    /// The maximum time from connecting to the end of the answer.
    private let timeout: Duration
    /// The maximum number of bytes of an answer that is collected.
    private static let bodyLimit = 64 << 20

    package init(_ address: ServerAddress, apiKey: String?, timeout: Duration) {
        self.address = address
        self.apiKey = apiKey
        self.timeout = timeout
    }

    /// Returns the same client with less time for an exchange.
    func limited(to timeout: Duration) -> HTTPClient { HTTPClient(address, apiKey: apiKey, timeout: timeout) }

    /// An answer with its whole body.
    package struct Answer: Sendable {
        package var status = 0
        package var body: [UInt8] = []

        /// Adds a piece of the body.
        mutating func append(_ bytes: ByteBuffer) throws {
            guard body.count + bytes.readableBytes <= HTTPClient.bodyLimit else {
                throw CommandError("the server's answer is larger than \(HTTPClient.bodyLimit) bytes")
            }
            body += bytes.readableBytesView
        }
    }

    package func get(_ path: String) async throws -> Answer {
        try await exchange(.GET, path, body: nil, into: Answer()) { answer, status, bytes in
            answer.status = status
            try answer.append(bytes)
        }
    }

    /// Sends a request and folds the pieces of the answer's body into `state` as they arrive. There is at least one
    /// piece, which may be empty.
    ///
    /// - Parameter take: Receives the state, the status and a piece; an error it throws ends the exchange.
    /// - Throws: `CommandError` if the connection or the time ends before the answer does.
    func exchange<State: Sendable>(
        _ method: HTTPMethod, _ path: String, body: ByteBuffer?, into state: State,
        _ take: @escaping @Sendable (inout State, Int, ByteBuffer) throws -> Void
    ) async throws -> State {
        try await within(timeout) {
            let channel = try await connect()
            return try await channel.executeThenClose { inbound, outbound in
                var parts: [HTTPClientRequestPart] = [.head(head(method, path, bodyBytes: body?.readableBytes))]
                if let body { parts.append(.body(.byteBuffer(body))) }
                // All at once: a server that has read the body may have answered and closed before a later write.
                try await outbound.write(contentsOf: parts + [.end(nil)])
                var (state, status) = (state, 0)
                for try await part in inbound {
                    switch part {
                    case .head(let head):
                        status = Int(head.status.code)
                        try take(&state, status, ByteBuffer())
                    case .body(let bytes): try take(&state, status, bytes)
                    case .end: return state
                    }
                }
                throw CommandError("the server closed the connection before its answer was complete")
            }
        }
    }

    private func connect() async throws -> NIOAsyncChannel<HTTPClientResponsePart, HTTPClientRequestPart> {
        do {
            return try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .connectTimeout(.seconds(10))
                .connect(host: address.host, port: address.port) { channel in
                    channel.eventLoop.makeCompletedFuture {
                        try channel.pipeline.syncOperations.addHTTPClientHandlers()
                        return try NIOAsyncChannel(wrappingChannelSynchronously: channel)
                    }
                }
        } catch {
            throw CommandError("cannot connect to \(address): \(error.connectionReason); does a server run there?")
        }
    }

    private func head(_ method: HTTPMethod, _ path: String, bodyBytes: Int?) -> HTTPRequestHead {
        var headers: HTTPHeaders = [
            "host": address.authority, "user-agent": "braid", "accept": "*/*", "connection": "close",
        ]
        if let bodyBytes {
            headers.add(name: "content-type", value: "application/json")
            headers.add(name: "content-length", value: String(bodyBytes))
        }
        if let apiKey { headers.add(name: "authorization", value: "Bearer \(apiKey)") }
        return HTTPRequestHead(version: .http1_1, method: method, uri: address.prefix + path, headers: headers)
    }
}

/// Runs `work`, or cancels it and throws after `limit`.
private func within<Result: Sendable>(
    _ limit: Duration, _ work: @escaping @Sendable () async throws -> Result
) async throws -> Result {
    try await withThrowingTaskGroup(of: Result.self) { tasks in
        tasks.addTask { try await work() }
        tasks.addTask {
            try await Task.sleep(for: limit)
            throw CommandError("the answer was not complete after \(limit)")
        }
        defer { tasks.cancelAll() }
        return try await tasks.next()!
    }
}

extension HTTPClient.Answer {
    /// The message of an error's body.
    var message: String {
        guard let json = try? JSONValue(parsing: body) else {
            return String(decoding: body.prefix(500), as: UTF8.self).printableLine
        }
        return serverMessage(of: json["error"] ?? json)
    }
}

/// Returns the message of an error in OpenAI's form or, in any other form, the beginning of the error, as one line.
package func serverMessage(of error: JSONValue) -> String {
    (error["message"]?.string ?? error.string ?? error.pythonText).printableLine
}
