import Inference

/// Why a request is not answered as asked, in the terms of the request.
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
        /// A body that is no JSON, or says that it is something else.
        case unsupportedMediaType
        /// A page of another origin asks, or a name that is not this server's.
        case forbidden
        /// Nobody waits for the answer any more. Proxies have a number for this; it is counted and never sent.
        case clientGone
        case overloaded(retryAfterSeconds: Int)
        /// Loading, draining, or failed for good.
        case unavailable
        /// This request failed on the way.
        case failed
    }

    package var kind: Kind
    /// What was wrong and what to try.
    package var message: String
    /// The request's own name of the part at fault.
    package var parameter: String?
    /// A word for programs, as OpenAI's `code`.
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

    /// Clients know this by its words: OpenAI's, and Anthropic's within them.
    static func contextExceeded(_ parameter: String, _ wanted: String, context: Int) -> RequestError {
        .invalid(
            parameter,
            "\(parameter): This model's maximum context length is \(context) tokens, and the prompt is too long for it: "
                + "\(wanted) were asked for; shorten the prompt or ask for fewer tokens",
            code: "context_length_exceeded")
    }
}

extension RequestError {
    /// An engine's refusal. The engine's name for the part at fault is used as it is; see `renamed(by:)`.
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

    /// The same error with the name the caller used for the part at fault.
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
