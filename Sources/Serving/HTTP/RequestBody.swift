package import Hummingbird
package import JSON

/// Reads the whole body of a request as JSON, within limits of size, memory and time.
package struct BodyReader: Sendable {
    private let maxBytes: Int
    private let limits: JSONLimits
    private let timeout: Duration
    private let memory: MemoryBudget

    init(_ configuration: ServerConfiguration, _ slot: ModelSlot) {
        self.init(configuration, memory: slot.memory)
    }

    package init(_ configuration: ServerConfiguration, memory: MemoryBudget) {
        maxBytes = configuration.maxBodyBytes
        timeout = configuration.bodyTimeout
        self.memory = memory
        var limits = JSONLimits()
        limits.maxValues = configuration.maxBodyValues
        limits.maxMembers = Self.maxMembers
        self.limits = limits
    }

    /// The maximum number of members of an object in a body.
    static let maxMembers = 1 << 16

    private static let byteOrderMark: [UInt8] = [0xEF, 0xBB, 0xBF]

    /// Reads a body and returns what `make` makes of its members, in the work pool if the body is large.
    ///
    /// - Parameter make: a closure that receives the members, and a share of memory that it may enlarge.
    func read<Asked: Sendable>(
        _ request: Request, on connection: ClientConnection,
        _ make: @escaping @Sendable (RequestFields, MemoryBudget.Share) throws -> Asked
    ) async throws -> Asked {
        let body = try await collect(request, on: connection)
        return try await parse(body, on: connection) { value throws in try make(RequestFields(value), body.share) }
    }

    /// The bytes of a body as the client has sent them, with the memory that is reserved for them.
    package struct Collected: Sendable {
        package let bytes: ByteBuffer
        /// True if the bytes are packed with gzip.
        let isPacked: Bool
        package let share: MemoryBudget.Share
    }

    /// Collects a whole body, and reserves memory for its values. A client that waits to send it is asked for it once
    /// nothing in the header speaks against it.
    package func collect(_ request: Request, on connection: ClientConnection) async throws -> Collected {
        try Self.checkContentType(request)
        let isPacked = try Self.isPacked(request)
        let share = try memory.share(of: 0)
        let length = request.headers[.contentLength].flatMap { Int($0) }
        if let length {
            guard length <= maxBytes else { throw Self.tooLarge(" of \(length) bytes", maxBytes) }
            try share.resize(to: Self.estimate(length))
        }
        connection.askForBody(of: request)
        let bytes = try await collect(request.body, share)
        // A client that has hung up has sent less than its header announced.
        if let length, bytes.readableBytes < length { throw RequestError.clientGone }
        return Collected(bytes: bytes, isPacked: isPacked, share: share)
    }

    /// Parses a body, and returns what `make` makes of its value, in the work pool if the body is large.
    ///
    /// - Throws: `RequestError` with the code `invalid_json` or `invalid_gzip` if it cannot be parsed.
    package func parse<Asked: Sendable>(
        _ body: Collected, on connection: ClientConnection, _ make: @escaping @Sendable (JSONValue) throws -> Asked
    ) async throws -> Asked {
        let (limits, maxBytes, bytes, isPacked, share) = (limits, maxBytes, body.bytes, body.isPacked, body.share)
        let work: @Sendable () throws -> Asked = {
            let value: JSONValue
            var text = isPacked ? try Self.unpack(bytes, atMost: maxBytes, share) : Array(bytes.readableBytesView)
            // Some clients begin with it, and Python's servers pass over it.
            if text.starts(with: Self.byteOrderMark) { text.removeFirst(Self.byteOrderMark.count) }
            do throws(JSONError) {
                value = try JSONValue(parsing: text, limits: limits, mayContinue: { WorkPool.mayContinue })
            } catch {
                try WorkPool.checkCancellation()
                let member = error.path.isEmpty ? nil : String(error.path.prefix(256))
                throw RequestError.invalid(member, "the request body is not usable: \(error)", code: "invalid_json")
            }
            return try make(value)
        }
        var watch: HangUpHandler.Watch?
        let asked = try await WorkPool.shared.run(
            bytes: isPacked ? max(bytes.readableBytes, WorkPool.smallBytes) : bytes.readableBytes,
            onStart: { watch = await connection.onHangUp($0) }, work)
        withExtendedLifetime(watch) {}
        return asked
    }

    /// Returns whether the body is packed with gzip, the only content coding that is read.
    private static func isPacked(_ request: Request) throws(RequestError) -> Bool {
        switch request.headers[.contentEncoding]?.lowercased() {
        case nil, "identity": return false
        case "gzip", "x-gzip": return true
        case .some(let coding):
            throw RequestError(
                .unsupportedMediaType, "the body has the coding '\(coding.prefix(64))'; send it as it is, or as gzip",
                code: "unsupported_media_type")
        }
    }

    /// Returns the unpacked bytes of a body.
    ///
    /// - Throws: an error if they are more than `limit` or do not fit the memory for requests.
    private static func unpack(
        _ bytes: ByteBuffer, atMost limit: Int, _ share: MemoryBudget.Share
    ) throws -> [UInt8] {
        do {
            let text = try Gzip.unpack(Array(bytes.readableBytesView)) { count in
                guard WorkPool.mayContinue else { throw RequestError.clientGone }
                guard count <= limit + (64 << 10) else { throw Self.tooLarge(", unpacked,", limit) }
                try share.grow(to: Self.estimate(count))
            }
            guard text.count <= limit else { throw Self.tooLarge(", unpacked,", limit) }
            return text
        } catch is Gzip.Problem {
            throw RequestError.invalid(nil, "the request body is not valid gzip", code: "invalid_gzip")
        }
    }

    /// Estimates the memory for a body of `bytes` bytes and its values, most of which are a few bytes long.
    private static func estimate(_ bytes: Int) -> Int { 8 * bytes }

    /// Checks that the body's content type is JSON, if the header gives one. Web pages can send other types to any
    /// server without its consent, which must not have an effect here.
    static func checkContentType(_ request: Request) throws(RequestError) {
        guard let field = request.headers[.contentType] else { return }
        let type = field.prefix { $0 != ";" }.filter { !$0.isWhitespace }.lowercased()
        // Clients in Python say this of a body that is empty. No web page can say it without the server's consent.
        if type == "application/octet-stream", request.headers[.contentLength] == "0" { return }
        guard type == "application/json" || type.hasSuffix("+json") else {
            throw RequestError(
                .unsupportedMediaType,
                "the body is of type '\(field.prefix(64))'; send JSON with the header 'Content-Type: application/json'",
                code: "unsupported_media_type")
        }
    }

    private func collect(_ body: RequestBody, _ share: MemoryBudget.Share) async throws -> ByteBuffer {
        try await withThrowingTaskGroup(of: ByteBuffer.self) { group in
            group.addTask {
                var whole = ByteBuffer()
                do {
                    for try await var part in body {
                        let length = whole.readableBytes + part.readableBytes
                        guard length <= maxBytes else { throw Self.tooLarge("", maxBytes) }
                        // A body without a known length is counted as it arrives.
                        try share.grow(to: Self.estimate(length))
                        whole.writeBuffer(&part)
                    }
                } catch let error as RequestError {
                    throw error
                } catch {
                    // The connection ended, or its data was not valid HTTP, which `ProtocolHandler` has answered.
                    throw RequestError.clientGone
                }
                return whole
            }
            group.addTask {
                try await Task.sleep(for: timeout)
                throw RequestError(.timeout, "the request body did not arrive within \(timeout)", code: "timeout")
            }
            defer { group.cancelAll() }
            guard let bytes = try await group.next() else { throw CancellationError() }
            return bytes
        }
    }

    private static func tooLarge(_ size: String, _ maxBytes: Int) -> RequestError {
        RequestError(
            .tooLarge, "the request body\(size) is too large: at most \(maxBytes) bytes are read",
            code: "request_too_large")
    }
}
