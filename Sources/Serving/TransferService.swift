package import Inference
import JSON

/// The part of a server's exchange of keys with others that its routes use.
package struct TransferService: Sendable {
    package enum Role: Sendable {
        /// Others compute prompts. The functions find the one with an address, which without a port has the usual one, and
        /// the one that has told an id.
        case decode(
            server: @Sendable (_ host: String, _ port: Int?) -> PrefillServer?,
            engine: @Sendable (_ id: String) -> PrefillServer?)
        /// This server computes prompts for others. The function returns a generation that ends without a token when the
        /// prompt of a room is computed.
        case prefill(
            generation: @Sendable (_ room: UInt64, _ promptTokens: Int) -> Generation, origin: TransferOrigin)
    }

    package struct PrefillServer: Sendable {
        let index: Int
        /// Why there is no session with it; `nil` while there is one.
        let problem: String?

        package init(index: Int, problem: String?) {
            self.index = index
            self.problem = problem
        }
    }

    let role: Role
    let status: @Sendable () -> TransferStatus

    package init(_ role: Role, status: @escaping @Sendable () -> TransferStatus) {
        self.role = role
        self.status = status
    }

    /// The part of each request that the engine computes itself.
    var mode: DisaggregationMode {
        if case .decode = role { .decode } else { .none }
    }

    /// The code of errors about a prefill server with which there is no session.
    static let prefillLost = "prefill_lost"

    /// Returns what a prefill server has to do for a request that a router sends to a decode server too: the answer goes
    /// on there after the first token.
    func shortened(_ request: TextRequest) -> TextRequest {
        guard case .prefill = role, request.bootstrap != nil || request.transferParams != nil else { return request }
        var request = request
        request.sampling.maxNewTokens = min(request.sampling.maxNewTokens ?? 1, 1)
        request.sampling.minNewTokens = min(request.sampling.minNewTokens, 1)
        return request
    }

    /// Returns the answer of a prefill server to such a request; `nil` if the engine has to answer, because the request
    /// wants scores of the prompt, which the router takes from here.
    func generation(for request: TextRequest) -> Generation? {
        guard case .prefill(let generation, _) = role, let bootstrap = request.bootstrap,
            request.logProbs?.promptStart == nil
        else { return nil }
        return generation(bootstrap.room, request.prompt.count)
    }

    /// Returns the index of the prefill server that a router has chosen, for a decode server's request.
    ///
    /// - Throws: if it is none of this server's own, or is lost.
    func prefillServer(for bootstrap: Bootstrap) throws(RequestError) -> Int? {
        guard case .decode(let find, _) = role else { return nil }
        let asked = bootstrap.host.prefix(128) + (bootstrap.port.map { ":\($0)" } ?? "")
        guard let server = find(bootstrap.host, bootstrap.port) else {
            throw .invalid(
                "bootstrap_host",
                "bootstrap_host: \(String(asked).quotedForMessage) is no prefill server of this one; name those of its "
                    + "--disaggregation-prefill, as they are written there")
        }
        if let problem = server.problem {
            throw RequestError(.unavailable, "the prefill server at \(asked): \(problem)", code: Self.prefillLost)
        }
        return server.index
    }
}

/// The names by which a prefill server's answers tell decode servers where the keys are.
package struct TransferOrigin: Sendable {
    /// The id of this start of the server, which its decode servers know.
    let engine: String
    /// The address on which it waits for decode servers; `nil` where it waits on all of its machine's, none of which it
    /// knows to be theirs.
    let host: String?
    let port: Int

    package init(engine: String, host: String, port: Int) {
        (self.engine, self.port) = (engine, port)
        self.host = ["0.0.0.0", "::"].contains(host) ? nil : host
    }
}
