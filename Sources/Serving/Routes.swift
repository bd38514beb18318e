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

        init(
            _ method: HTTPRequest.Method, _ pattern: String, _ place: FieldTable.Place?,
            _ handler: @escaping Handler
        ) {
            (self.method, self.pattern, self.place, self.handler) = (method, pattern, place, handler)
        }

        /// Creates a route of a server that does not look at the members of bodies itself.
        package init(_ method: HTTPRequest.Method, _ pattern: String, _ handler: @escaping Handler) {
            self.init(method, pattern, nil, handler)
        }
    }

    /// The only route that never requires an API key.
    package static let health = "/health"
    /// The routes that require none if the operator says so.
    static let monitoring = ["/ready", "/ping", "/metrics"]
    package static let models = "/v1/models"

    let routes: [Route]

    package init(_ routes: [Route]) { self.routes = routes }

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
            Route(.get, Self.health, nil, health.health),
            Route(.get, "/ready", nil, health.ready),
            Route(.get, "/ping", nil, health.ping),
            Route(.post, "/ping", nil, health.ping),
            Route(.get, "/health_generate", nil, health.healthGenerate),
            Route(.get, "/metrics", nil, health.metrics),
            Route(.get, "/version", nil, info.version),
            Route(.get, "/server_info", nil, info.serverInfo),
            Route(.get, "/get_server_info", nil, info.serverInfo),
            Route(.get, "/model_info", nil, info.modelInfo),
            Route(.get, "/get_model_info", nil, info.modelInfo),
            Route(.get, "/v1/loads", nil, info.loads),
            Route(.get, "/get_load", nil, info.load),
            Route(.get, "/tokenizer_info", nil, info.tokenizerInfo),
            Route(.post, "/flush_cache", nil, health.flushCache),
            Route(.post, "/abort_request", .abort, health.abortRequest),
            Route(.get, Self.models, nil, models.list),
            Route(.get, Self.models + "/**", nil, models.one),
            Route(.post, "/v1/chat/completions", .chat, chat.post),
            Route(.post, "/v1/completions", .completion, completions.post),
            Route(.post, "/v1/responses", .responses, responses.post),
            Route(.post, MessagesRoutes.path, .messages, messages.post),
            Route(.post, MessagesRoutes.path + "/count_tokens", .countTokens, messages.countTokens),
            Route(.post, "/generate", .generate, generate.post),
            Route(.put, "/generate", .generate, generate.post),
            Route(.post, "/tokenize", .tokenize, text.tokenize),
            Route(.post, "/v1/tokenize", .tokenize, text.tokenize),
            Route(.post, "/detokenize", .detokenize, text.detokenize),
            Route(.post, "/v1/detokenize", .detokenize, text.detokenize),
        ]
        let described = page + others
        let description = OpenAPI.document(of: described).pythonBytes
        routes = described + [Route(.get, OpenAPI.path, nil) { _, _ in .json(written: description) }]
    }

    /// Returns the response to a request without a route: 405 if the path has routes for other methods, otherwise 404.
    func missing(_ path: String, method: HTTPRequest.Method) -> Response {
        let allowed = Set(routes.filter { Self.matches($0.pattern, path) }.map(\.method.rawValue))
        guard !allowed.isEmpty else {
            return .error(RequestError(.notFound, "there is no route '\(path.prefix(256))'", code: "not_found"), path)
        }
        let list = allowed.union(allowed.contains("GET") ? ["HEAD"] : []).sorted().joined(separator: ", ")
        var response = Response.error(
            RequestError(
                .methodNotAllowed, "\(path) does not take \(method.rawValue); use \(list)", code: "method_not_allowed"),
            path)
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
        .json(.fields(["object": .string("list"), "data": .array(try configuration.modelNames.map(model))]))
    }

    /// Describes the model whose name is the rest of the path. Names such as `deepseek-ai/DeepSeek-V3.2` have slashes,
    /// which may be percent-encoded.
    func one(_ request: Request, _ context: ServingContext) async throws -> Response {
        let raw = String(request.uri.path.dropFirst(RouteTable.models.count + 1))
        let name = raw.removingPercentEncoding ?? raw
        guard configuration.modelNames.contains(name) else {
            throw RequestError.modelNotFound(name, served: configuration.modelNames)
        }
        return .json(try model(name))
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
