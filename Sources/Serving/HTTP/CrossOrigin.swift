import HTTPTypes
import Hummingbird

/// Lets web pages of the origins that the operator names use this server (CORS): answers the questions of browsers
/// before such requests, which have no API key, and marks all other responses.
struct CrossOrigin: RouterMiddleware {
    typealias Context = ServingContext

    private let origins: Set<String>

    init(_ configuration: ServerConfiguration) {
        origins = Set(configuration.corsOrigins.map { $0.lowercased() })
    }

    func handle(
        _ request: Request, context: ServingContext,
        next: @concurrent (Request, ServingContext) async throws -> Response
    ) async throws -> Response {
        let origin = request.headers[.origin].flatMap {
            origins.contains($0.lowercased()) || origins.contains("*") ? $0 : nil
        }
        let isQuestion = request.method == .options && request.headers[.accessControlRequestMethod] != nil
        var response =
            origin != nil && isQuestion ? Self.answer(to: request) : try await next(request, context)
        if let origin {
            response.headers[.accessControlAllowOrigin] = origin
            response.headers[.accessControlExposeHeaders] = "x-request-id"
        }
        // A cache must not give a page the response to another one, nor that to a request without an origin.
        response.headers.append(HTTPField(name: .vary, value: "origin"))
        return response
    }

    /// Returns the answer to a browser that asks whether a page may send a request.
    private static func answer(to request: Request) -> Response {
        Response(
            status: .noContent,
            headers: [
                .accessControlAllowMethods: "GET, POST, PUT, HEAD, OPTIONS",
                .accessControlAllowHeaders: request.headers[.accessControlRequestHeaders]
                    ?? "authorization, content-type",
                .accessControlMaxAge: "600",
            ])
    }
}

/// Gives each response the id of its request: the header `x-request-id` that the client sent, or a new one.
struct RequestIdentifiers: RouterMiddleware {
    typealias Context = ServingContext

    private static let name = HTTPField.Name("x-request-id")!
    /// Anthropic's name of the header.
    private static let anthropicName = HTTPField.Name("request-id")!

    func handle(
        _ request: Request, context: ServingContext,
        next: @concurrent (Request, ServingContext) async throws -> Response
    ) async throws -> Response {
        var response = try await next(request, context)
        let given = request.headers[Self.name].flatMap { id in
            id.utf8.count <= 256 && id.utf8.allSatisfy { (0x20...0x7E).contains($0) } ? id : nil
        }
        // A router passes on the identifier that a server has given.
        let id = given ?? response.headers[Self.name] ?? Envelope.randomDigits()
        response.headers[Self.name] = id
        if AnthropicInterface.has(request) { response.headers[Self.anthropicName] = id }
        return response
    }
}
