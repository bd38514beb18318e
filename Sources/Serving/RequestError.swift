import Inference

/// The reason why a request is not answered, in the terms of the request.
package struct RequestError: Error, Sendable, Equatable, CustomStringConvertible {
    package enum Kind: Sendable, Equatable {
        /// The request itself is at fault.
        case invalid
        case unauthorized
        case notFound
        case methodNotAllowed
        /// The body did not arrive in time.
        case timeout
        case tooLarge
        /// The body is not JSON, or its content type says so.
        case unsupportedMediaType
        /// The request comes from a web page of another origin, or addresses this server by a name that is not allowed.
        case forbidden
        /// The client disconnected. The status for this, 499, is counted in metrics and never sent.
        case clientGone
        case overloaded(retryAfterSeconds: Int)
        /// The engine is loading, draining, or has failed permanently.
        case unavailable
        /// The generation of this request failed.
        case failed
    }

    package var kind: Kind
    /// The problem, and what to try.
    package var message: String
    /// The request's own name of the invalid member.
    package var parameter: String?
    /// An identifier for programs, as OpenAI's `code`.
    package var code: String?

    package init(_ kind: Kind, _ message: String, parameter: String? = nil, code: String? = nil) {
        self.kind = kind
        self.message = message
        self.parameter = parameter
        self.code = code
    }

    package static func invalid(_ parameter: String?, _ message: String, code: String? = nil) -> RequestError {
        RequestError(.invalid, message, parameter: parameter, code: code)
    }

    package var description: String { message }

    static let clientGone = RequestError(.clientGone, "the client went away")

    /// Returns the error for a request that exceeds the context length. Clients recognize it by its text, which
    /// contains that of OpenAI and that of Anthropic.
    static func contextExceeded(_ parameter: String, _ wanted: String, context: Int) -> RequestError {
        .invalid(
            parameter,
            "\(parameter): This model's maximum context length is \(context) tokens, and the prompt is too long for it: "
                + "\(wanted) were asked for; shorten the prompt or ask for fewer tokens",
            code: "context_length_exceeded")
    }
}

extension RequestError {
    /// Creates the error for an engine's refusal, with the engine's name of the invalid member; see `renamed(by:)`.
    init(_ error: EngineError) {
        switch error {
        case .invalid(let parameter, let message): self = .invalid(parameter, "\(parameter): \(message)")
        case .overloaded(_, let seconds):
            self.init(
                .overloaded(retryAfterSeconds: max(1, seconds)), error.description, code: "rate_limit_exceeded")
        case .draining: self = .draining
        case .failed: self.init(.unavailable, error.description, code: "engine_failed")
        }
    }

    static let draining = RequestError(
        .unavailable, EngineError.draining.description, code: "shutting_down")

    /// Returns the same error with the name that the request used for the invalid member.
    func renamed(by names: [String: String]) -> RequestError {
        guard let parameter, let name = names[parameter] else { return self }
        var renamed = self
        renamed.parameter = name
        if message.hasPrefix("\(parameter): ") {
            renamed.message = "\(name): \(message.dropFirst(parameter.count + 2))"
        }
        return renamed
    }
}
