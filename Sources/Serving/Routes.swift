import Foundation
import Hummingbird
import Inference
import JSON

/// The list of all routes of the server. The router, the 405 responses and the tests are made from it.
struct RouteTable: Sendable {
    typealias Handler = @Sendable (Request, ServingContext) async throws -> Response

    struct Route: Sendable {
        let method: HTTPRequest.Method
        /// The path in Hummingbird's notation.
        let pattern: String
        let handler: Handler
    }

    /// The only route that never requires an API key.
    static let health = "/health"
    static let models = "/v1/models"

    let routes: [Route]

    init(configuration: ServerConfiguration, slot: ModelSlot) {
        let health = HealthRoutes(configuration: configuration, slot: slot)
        let models = ModelRoutes(configuration: configuration, slot: slot)
        let chat = ChatRoutes(configuration: configuration, slot: slot)
        let completions = CompletionRoutes(configuration: configuration, slot: slot)
        let generate = GenerateRoutes(configuration: configuration, slot: slot)
        let text = TokenizeRoutes(configuration: configuration, slot: slot)
        routes = [
            Route(method: .get, pattern: Self.health, handler: health.health),
            Route(method: .get, pattern: "/ready", handler: health.ready),
            Route(method: .get, pattern: "/metrics", handler: health.metrics),
            Route(method: .get, pattern: "/server_info", handler: health.serverInfo),
            Route(method: .post, pattern: "/flush_cache", handler: health.flushCache),
            Route(method: .get, pattern: Self.models, handler: models.list),
            Route(method: .get, pattern: Self.models + "/**", handler: models.one),
            Route(method: .post, pattern: "/v1/chat/completions", handler: chat.post),
            Route(method: .post, pattern: "/v1/completions", handler: completions.post),
            Route(method: .post, pattern: "/generate", handler: generate.post),
            Route(method: .put, pattern: "/generate", handler: generate.post),
            Route(method: .post, pattern: "/tokenize", handler: text.tokenize),
            Route(method: .post, pattern: "/detokenize", handler: text.detokenize),
        ]
    }

    /// Returns the response to a request without a route: 405 if the path has routes for other methods, otherwise 404.
    func missing(_ path: String, method: HTTPRequest.Method) -> Response {
        let allowed = Set(routes.filter { Self.matches($0.pattern, path) }.map(\.method.rawValue))
        guard !allowed.isEmpty else {
            return .error(RequestError(.notFound, "there is no route '\(path.prefix(256))'", code: "not_found"))
        }
        let list = allowed.union(allowed.contains("GET") ? ["HEAD"] : []).sorted().joined(separator: ", ")
        var response = Response.error(
            RequestError(
                .methodNotAllowed, "\(path) does not take \(method.rawValue); use \(list)", code: "method_not_allowed"))
        response.headers[.allow] = list
        return response
    }

    /// Returns a route's pattern as metrics show it; it is `unknown` for anything that is no route.
    func pattern(_ endpoint: String?) -> String {
        routes.first { $0.pattern == endpoint }?.pattern ?? "unknown"
    }

    private static func matches(_ pattern: String, _ path: String) -> Bool {
        pattern.hasSuffix("/**") ? path.hasPrefix(pattern.dropLast(2)) : path == pattern
    }
}

/// Handles `GET /v1/models` and `GET /v1/models/{id}`.
struct ModelRoutes: Sendable {
    let configuration: ServerConfiguration
    let slot: ModelSlot

    func list(_ request: Request, _ context: ServingContext) async throws -> Response {
        .json(.fields(["object": .string("list"), "data": .array([try model()])]))
    }

    /// Describes the model whose name is the rest of the path. Names such as `deepseek-ai/DeepSeek-V3.2` have slashes,
    /// which may be percent-encoded.
    func one(_ request: Request, _ context: ServingContext) async throws -> Response {
        let raw = String(request.uri.path.dropFirst(RouteTable.models.count + 1))
        let name = raw.removingPercentEncoding ?? raw
        guard name == configuration.servedModelName else {
            throw RequestError.modelNotFound(name, served: configuration.servedModelName)
        }
        return .json(try model())
    }

    private func model() throws(RequestError) -> JSONValue {
        let service = try slot.service()
        return .fields([
            "id": .string(configuration.servedModelName), "object": .string("model"),
            "created": .integer(slot.created), "owned_by": .string("braid"),
            "max_model_len": .integer(service.engine.limits.contextLength),
        ])
    }
}
