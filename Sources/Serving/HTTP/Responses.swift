package import Hummingbird
package import JSON

extension Response {
    package static func json(_ value: JSONValue, status: HTTPResponse.Status = .ok, headers: HTTPFields = [:])
        -> Response
    {
        json(written: value.pythonBytes, status: status, headers: headers)
    }

    /// Returns a response of JSON text.
    ///
    /// - Parameter bytes: the JSON text.
    package static func json(
        written bytes: [UInt8], status: HTTPResponse.Status = .ok, headers: HTTPFields = [:]
    ) -> Response {
        var headers = headers
        headers[.contentType] = "application/json"
        let body = ByteBuffer(bytes: bytes)
        headers[.contentLength] = String(body.readableBytes)
        return Response(status: status, headers: headers, body: ResponseBody(byteBuffer: body))
    }

    package static func text(_ text: String, contentType: String) -> Response {
        Response(
            status: .ok, headers: [.contentType: contentType],
            body: ResponseBody(byteBuffer: ByteBuffer(string: text)))
    }

    /// Returns an error in the form of the request's interface: Anthropic's, or OpenAI's for all others.
    package static func error(_ error: RequestError, _ request: Request) -> Response {
        var headers: HTTPFields = [:]
        switch error.kind {
        case .overloaded(let seconds): headers[.retryAfter] = String(seconds)
        case .unauthorized: headers[.wwwAuthenticate] = "Bearer"
        // The rest of the body will not be read.
        case .timeout, .tooLarge, .unsupportedMediaType, .forbidden: headers[.connection] = "close"
        default: break
        }
        let json = AnthropicInterface.has(request) ? error.anthropicJSON : error.json
        return .json(json, status: error.status, headers: headers)
    }
}

extension RequestError {
    var status: HTTPResponse.Status {
        switch kind {
        case .invalid: .badRequest
        case .unauthorized: .unauthorized
        case .notFound: .notFound
        case .methodNotAllowed: .methodNotAllowed
        case .timeout: .requestTimeout
        case .tooLarge: .contentTooLarge
        case .unsupportedMediaType: .unsupportedMediaType
        case .forbidden: .forbidden
        case .clientGone: HTTPResponse.Status(code: 499, reasonPhrase: "Client Closed Request")
        case .overloaded: .tooManyRequests
        case .unavailable: .serviceUnavailable
        case .failed: .internalServerError
        }
    }

    var json: JSONValue {
        let type =
            switch kind {
            case .overloaded: "rate_limit_error"
            case .unavailable, .failed: "server_error"
            default: "invalid_request_error"
            }
        return .fields([
            "error": .fields([
                "message": .string(message), "type": .string(type), "param": .optional(parameter),
                "code": .optional(code),
            ])
        ])
    }
}
