import JSON

/// The reason why a worker has not answered a request, which another worker may answer.
package struct Refusal: Sendable, Equatable {
    package enum Kind: String, Sendable, CaseIterable {
        /// No connection: the worker has seen nothing of the request.
        case unreachable
        /// The connection ended before an answer began. The request itself may be the cause.
        case lost
        /// The worker has too many requests.
        case full
        /// The worker loads its model, or drains.
        case notReady = "not_ready"
        /// The server that computes the worker's prompts is lost, perhaps one that the request names.
        case prefillLost = "prefill_lost"
        /// The worker's engine has failed.
        case failed
        /// This router can open no connection.
        case noResources = "no_resources"
    }

    package let kind: Kind
    /// The reason in words.
    package let reason: String
    /// The seconds after which the worker wants to be asked again.
    package var retryAfter: Int?

    package init(_ kind: Kind, _ reason: String, retryAfter: Int? = nil) {
        self.kind = kind
        self.reason = reason
        self.retryAfter = retryAfter
    }

    /// The maximum size of an answer that may be a refusal, in bytes.
    package static let maxBytes = 64 << 10

    /// Returns whether an answer of this status may be a refusal, by its body.
    package static func isPossible(status: Int) -> Bool { [429, 502, 503].contains(status) }

    /// Reads an answer of a worker. Errors of the request itself, and all that Braid does not say, are answers.
    ///
    /// - Parameter retryAfter: the value of the answer's header.
    /// - Returns: `nil` if the answer is for the client.
    package init?(status: Int, body: [UInt8], retryAfter: String?) {
        let seconds = retryAfter.flatMap { Int($0) }.flatMap { (0...3600).contains($0) ? $0 : nil }
        if status == 429 {
            self.init(.full, "status 429", retryAfter: seconds)
            return
        }
        guard status == 502 || status == 503 else { return nil }
        let error = (try? JSONValue(parsing: body, limits: .strict))?["error"]
        switch error?["code"]?.string {
        case "loading", "shutting_down": self.init(.notReady, "it is loading or draining", retryAfter: seconds)
        case "engine_failed": self.init(.failed, "its engine has failed", retryAfter: seconds)
        case "prefill_lost": self.init(.prefillLost, "its prefill server is lost", retryAfter: seconds)
        // Another router, whose workers are full.
        case "no_worker_available": self.init(.full, "its workers are full", retryAfter: seconds)
        // Anthropic's form of errors has no code.
        case nil where error?["type"]?.string == "overloaded_error":
            self.init(.notReady, "it is not ready", retryAfter: seconds)
        default: return nil
        }
    }
}
