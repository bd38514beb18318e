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

    /// The length of a prompt that does not fit the context.
    enum Length {
        case tokens(Int, new: Int)
        /// The bytes of a text that is too long to be tokenized.
        case bytes(Int)
    }

    /// Returns the error for a request that exceeds the context length. Clients recognize it by its text, which
    /// contains that of OpenAI and that of Anthropic.
    static func contextExceeded(_ parameter: String, _ length: Length, context: Int) -> RequestError {
        let excess =
            switch length {
            case .tokens(let count, let new):
                // A request may ask for any number of tokens.
                "\(new > Int.max - count ? Int.max : count + new) tokens > \(context) maximum; the prompt has \(count) tokens and \(new) new ones were "
                    + "asked for"
            case .bytes(let count): "\(count) bytes of text are more than \(context) tokens can have"
            }
        // Clients shorten the conversation when they read Anthropic's words, which does not help if the wish is too large.
        let isPrompt = if case .tokens(let count, _) = length { count >= context } else { true }
        let subject = isPrompt ? promptTooLong : "input length and max_tokens exceed the context limit"
        return .invalid(
            parameter,
            "\(parameter): This model's maximum context length is \(context) tokens. \(subject): \(excess); "
                + "shorten the prompt or ask for fewer tokens",
            code: contextExceededCode)
    }

    static let contextExceededCode = "context_length_exceeded"
    /// The words by which clients of Anthropic recognize the error.
    static let promptTooLong = "prompt is too long"
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
