/// A worker of a router: a server, and what the router knows of it.
package struct RoutedWorker: Sendable {
    package enum Role: String, Sendable, CaseIterable {
        /// A server that computes whole requests.
        case regular
        /// A server that computes prompts for decode servers. It gets no requests: a decode server asks it.
        case prefill
        /// A server whose prompts a prefill server computes.
        case decode

        package var getsRequests: Bool { self != .prefill }
    }

    /// A number that no other worker has or had.
    package let id: Int
    package let address: ServerAddress
    package let role: Role
    /// The worker's bit in the prefix index.
    let slot: Int
    package internal(set) var health: WorkerHealth
    package internal(set) var breaker: Breaker
    package internal(set) var load = WorkerLoad()
    /// What the worker said when it was last asked when it started; `nil` if it does not tell.
    var startTime: Int?
    /// The name of the worker's model, and what it does for other servers, as it told when it was last asked.
    package internal(set) var modelName: String?
    package internal(set) var mode: String?

    /// Returns what is wrong with the role that the worker was given; `nil` if nothing is, or nothing is known.
    package var roleProblem: String? {
        switch (role, mode) {
        case (_, nil), (.prefill, "prefill"), (.decode, "decode"), (.regular, "null"), (.regular, "decode"): nil
        case (.prefill, "decode"), (.decode, "prefill"):
            "is a \(mode!) server, but was given as a \(role.rawValue) server: are --prefill and --decode swapped?"
        case (.regular, _):
            "computes prompts for decode servers only: give it as --prefill, with --pd-disaggregation"
        case (.prefill, _), (.decode, _):
            "was started without --disaggregation-mode \(role.rawValue), but was given as a \(role.rawValue) server: it "
                + "computes whole requests; give such servers as --worker-urls, without --pd-disaggregation"
        }
    }

    /// Returns whether the worker gets requests now.
    package func isAvailable(at now: ContinuousClock.Instant) -> Bool {
        role.getsRequests && health.state == .ready && breaker.admits(at: now)
    }
}

/// The choice of a worker for one request.
package struct Assignment: Sendable {
    package let worker: Int
    package let address: ServerAddress
    /// The bytes of the request's text that the worker probably has to compute.
    let unmatchedBytes: Int
    let isProbe: Bool
}

/// What came of a request to a worker, for its breaker.
package enum RequestOutcome: Sendable, Equatable {
    case succeeded
    /// The answer says that the server has failed, or it broke off.
    case failed
    case refused(Refusal)
    /// The client ended the request, which says nothing about the worker.
    case abandoned
}
