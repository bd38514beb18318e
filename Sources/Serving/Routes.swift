import Foundation
package import Hummingbird
import Inference
import JSON

/// The list of all routes of a server. The router, the 405 responses and the tests are made from it.
package struct RouteTable: Sendable {
    package typealias Handler = @Sendable (Request, ServingContext) async throws -> Response

    package struct Route: Sendable {
        let method: HTTPRequest.Method
        /// The path in Hummingbird's notation.
        let pattern: String
        /// The table of the members that a request's body may have; `nil` for routes without one.
        let place: FieldTable.Place?
        let handler: Handler

        package init(_ method: HTTPRequest.Method, _ pattern: String, _ handler: @escaping Handler) {
            (self.method, self.pattern, self.handler) = (method, pattern, handler)
            place = method == .post || method == .put ? RouteTable.places[pattern] : nil
        }
    }

    /// The places of the members of bodies, by the route's pattern.
    private static let places: [String: FieldTable.Place] = [
        "/abort_request": .abort, "/v1/chat/completions": .chat, "/v1/completions": .completion,
        "/v1/responses": .responses, MessagesRoutes.path: .messages,
        MessagesRoutes.path + "/count_tokens": .countTokens, "/generate": .generate, "/tokenize": .tokenize,
        "/v1/tokenize": .tokenize, "/detokenize": .detokenize, "/v1/detokenize": .detokenize,
    ]

    /// The only route that never requires an API key.
    package static let health = "/health"
    /// The routes that require none if the operator says so.
    static let monitoring = ["/ready", "/ping", "/metrics"]
    package static let models = "/v1/models"

    let routes: [Route]

    /// Creates a table of routes and of the one that describes them.
    package init(_ described: [Route]) {
        let description = OpenAPI.document(of: described).pythonBytes
        routes = described + [Route(.get, OpenAPI.path) { _, _ in .json(written: description) }]
    }

    init(configuration: ServerConfiguration, slot: ModelSlot) {
        let health = HealthRoutes(configuration: configuration, slot: slot)
        let models = ModelRoutes(configuration: configuration, slot: slot)
        let chat = ChatRoutes(configuration: configuration, slot: slot)
        let completions = CompletionRoutes(configuration: configuration, slot: slot)
        let generate = GenerateRoutes(configuration: configuration, slot: slot)
        let text = TokenizeRoutes(configuration: configuration, slot: slot)
        let info = InfoRoutes(configuration: configuration, slot: slot)
        let messages = MessagesRoutes(configuration: configuration, slot: slot)
        let responses = ResponsesRoutes(configuration: configuration, slot: slot)
        let page = configuration.hasPage ? PageRoutes(configuration: configuration, slot: slot).routes : []
        let others = [
            Route(.get, Self.health, health.health),
            Route(.get, "/ready", health.ready),
            Route(.get, "/ping", health.ping),
            Route(.post, "/ping", health.ping),
            Route(.get, "/health_generate", health.healthGenerate),
            Route(.get, "/metrics", health.metrics),
            Route(.get, "/version", info.version),
            Route(.get, "/server_info", info.serverInfo),
            Route(.get, "/get_server_info", info.serverInfo),
            Route(.get, "/model_info", info.modelInfo),
            Route(.get, "/get_model_info", info.modelInfo),
            Route(.get, "/v1/loads", info.loads),
            Route(.get, "/get_load", info.load),
            Route(.get, "/tokenizer_info", info.tokenizerInfo),
            Route(.post, "/flush_cache", health.flushCache),
            Route(.post, "/reset_prefix_cache", health.flushCache),
            Route(.post, "/abort_request", health.abortRequest),
            Route(.get, Self.models, models.list),
            Route(.get, Self.models + "/**", models.one),
            Route(.post, "/v1/chat/completions", chat.post),
            Route(.post, "/v1/completions", completions.post),
            Route(.post, "/v1/responses", responses.post),
            Route(.post, MessagesRoutes.path, messages.post),
            Route(.post, MessagesRoutes.path + "/count_tokens", messages.countTokens),
            Route(.post, "/generate", generate.post),
            Route(.put, "/generate", generate.post),
            Route(.post, "/tokenize", text.tokenize),
            Route(.post, "/v1/tokenize", text.tokenize),
            Route(.post, "/detokenize", text.detokenize),
            Route(.post, "/v1/detokenize", text.detokenize),
        ]
        self.init(page + others)
    }

    /// Returns the response to a request without a route: 405 if the path has routes for other methods, otherwise 404.
    func missing(_ request: Request) -> Response {
        let path = request.uri.path
        let allowed = Set(routes.filter { Self.matches($0.pattern, path) }.map(\.method.rawValue))
        guard !allowed.isEmpty else {
            return .error(
                RequestError(.notFound, "there is no route '\(path.prefix(256))'", code: "not_found"), request)
        }
        let list = allowed.union(allowed.contains("GET") ? ["HEAD"] : []).sorted().joined(separator: ", ")
        var response = Response.error(
            RequestError(
                .methodNotAllowed, "\(path) does not take \(request.method.rawValue); use \(list)",
                code: "method_not_allowed"),
            request)
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
        try ModelList.response(configuration.modelNames.map(model), to: request)
    }

    /// Describes the model whose name is the rest of the path. Names such as `deepseek-ai/DeepSeek-V3.2` have slashes,
    /// which may be percent-encoded.
    func one(_ request: Request, _ context: ServingContext) async throws -> Response {
        let raw = String(request.uri.path.dropFirst(RouteTable.models.count + 1))
        let name = raw.removingPercentEncoding ?? raw
        guard configuration.modelNames.contains(name) else {
            throw RequestError.modelNotFound(name, served: configuration.modelNames)
        }
        return ModelList.response(model: try model(name), to: request)
    }

    private func model(_ name: String) throws(RequestError) -> JSONValue {
        let service = try slot.service()
        return .fields([
            "id": .string(name), "object": .string("model"),
            // Routers choose by this how to talk to the server, and its own routes are those of SGLang.
            "created": .integer(slot.created), "owned_by": .string("sglang"),
            "root": .string(
                configuration.model.path.isEmpty ? configuration.servedModelName : configuration.model.path),
            "parent": .null, "max_model_len": .integer(service.engine.limits.contextLength),
        ])
    }
}
