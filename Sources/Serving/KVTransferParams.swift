import JSON

/// The member `kv_transfer_params` of a request. A router like llm-d's sidecar sends a request to a prefill server first,
/// and puts the params of its answer into the request to a decode server. The names are those of vLLM's NixlConnector.
enum KVTransferParams: Sendable, Equatable {
    /// The prompt is to be computed here, and the answer goes on at another server.
    case remoteDecode
    /// Another server has computed the prompt. It is found by its id or, if it was started again, by its address.
    case remotePrefill(engine: String?, host: String?, port: Int?)

    static let name = "kv_transfer_params"

    /// Reads the params; `nil` if the request has none, or those that ask for nothing.
    init?(_ fields: RequestFields) throws(RequestError) {
        guard let params = try fields.object(Self.name) else { return nil }
        try FieldTable.check(params, at: .transferParams)
        let decodesElsewhere = try params.bool("do_remote_decode") ?? false
        let isPrefilled = try params.bool("do_remote_prefill") ?? false
        let engine = try params.text("remote_engine_id", atMost: 128)
        let host = try params.text("remote_host", atMost: 256)
        let port = try params.integer("remote_port", in: 1...65_535)
        guard !decodesElsewhere || !isPrefilled else {
            throw .invalid(
                Self.name, "\(Self.name): do_remote_decode and do_remote_prefill are both true; give one of them")
        }
        if decodesElsewhere {
            self = .remoteDecode
        } else if isPrefilled {
            guard engine != nil || host != nil else {
                let name = params.path(of: "remote_engine_id")
                throw .invalid(
                    name, "\(name) is missing; give the kv_transfer_params of the prefill server's answer as they are")
            }
            self = .remotePrefill(engine: engine, host: host, port: port)
        } else {
            return nil
        }
    }

    /// Returns true if a request asks for its prompt only, so that its limit of new tokens is not the client's.
    static func asksForPrompt(_ fields: RequestFields) -> Bool {
        fields.value(name)?["do_remote_decode"]?.bool ?? false
    }
}

extension RequestFields {
    fileprivate func text(_ name: String, atMost limit: Int) throws(RequestError) -> String? {
        guard let text = try string(name), !text.isEmpty else { return nil }
        guard text.utf8.count <= limit else {
            throw .invalid(
                path(of: name), "\(path(of: name)) has \(text.utf8.count) bytes; the most is \(limit)")
        }
        return text
    }
}

extension TextService {
    /// Returns the params of a request, if this server can do what they ask for.
    ///
    /// - Parameter isStreamed: true for a request whose answer is streamed.
    /// - Throws: an error that names what is wrong, or what this server does not do.
    func transferParams(of fields: RequestFields, isStreamed: Bool) throws(RequestError) -> KVTransferParams? {
        guard let params = try KVTransferParams(fields) else { return nil }
        let name = KVTransferParams.name
        guard let transfers else {
            throw .invalid(
                name,
                "\(name) is not supported: this server prefills and decodes by itself; start it with "
                    + "--disaggregation-mode, or name no prefill server to the router", code: "unsupported_parameter")
        }
        switch (params, transfers.role) {
        case (.remoteDecode, .decode):
            throw .invalid(
                "\(name).do_remote_decode",
                "\(name).do_remote_decode is not supported by a decode server; send this request to a server with "
                    + "--disaggregation-mode prefill", code: "unsupported_parameter")
        case (.remotePrefill, .prefill):
            throw .invalid(
                "\(name).do_remote_prefill",
                "\(name).do_remote_prefill is not supported by a prefill server; send this request to a server with "
                    + "--disaggregation-mode decode", code: "unsupported_parameter")
        case (.remoteDecode, .prefill):
            guard !isStreamed else {
                throw .invalid(
                    "stream", "stream: the answer to \(name).do_remote_decode is not streamed; use \"stream\": false")
            }
        case (.remotePrefill, .decode): break
        }
        return params
    }
}

extension TransferService {
    /// Returns the params that a prefill server answers with; `nil` if a request has not asked for them.
    ///
    /// Keys are named by their positions, so there are no ids of blocks.
    func answer(to params: KVTransferParams?, id: String) -> JSONValue? {
        guard params == .remoteDecode, case .prefill(_, let origin) = role else { return nil }
        return .fields([
            "do_remote_prefill": .bool(true), "do_remote_decode": .bool(false),
            "remote_engine_id": .string(origin.engine), "remote_request_id": .string(id),
            "remote_block_ids": .array([]), "remote_host": .optional(origin.host),
            "remote_port": .integer(origin.port),
        ])
    }

    /// Returns the index of the prefill server that has computed a request's prompt, for a decode server.
    ///
    /// - Throws: if it is none of this server's own, or is lost.
    func prefillServer(for params: KVTransferParams) throws(RequestError) -> Int? {
        guard case .decode(let find, let findEngine) = role,
            case .remotePrefill(let engine, let host, let port) = params
        else { return nil }
        let found = engine.flatMap(findEngine) ?? host.flatMap { find($0, port) }
        let asked = (engine ?? host ?? "").prefix(128)
        // Another attempt finds a server that was started again, so this is no fault of the request.
        guard let found else {
            throw RequestError(
                .unavailable,
                "kv_transfer_params: the prefill server \(String(asked).quotedForMessage) was started again, or is none "
                    + "of this server's --disaggregation-prefill; send the request to a prefill server again",
                code: Self.prefillLost)
        }
        if let problem = found.problem {
            throw RequestError(
                .unavailable, "the prefill server \(String(asked).quotedForMessage): \(problem)",
                code: Self.prefillLost)
        }
        return found.index
    }
}

extension [TextRequest] {
    /// Returns the requests with the params of theirs.
    func with(_ params: KVTransferParams?) -> [TextRequest] {
        guard let params else { return self }
        return map { request in
            var request = request
            request.transferParams = params
            return request
        }
    }
}
