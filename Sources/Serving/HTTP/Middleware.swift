import Hummingbird
import Logging
import NIOCore

/// Turns every error into a response in OpenAI's format, and counts the responses.
struct ErrorResponses: RouterMiddleware {
    typealias Context = ServingContext

    let metrics: ServerMetrics
    let routes: RouteTable

    func handle(
        _ request: Request, context: ServingContext,
        next: @concurrent (Request, ServingContext) async throws -> Response
    ) async throws -> Response {
        var response: Response
        do {
            response = try await next(request, context)
        } catch let error as RequestError where error.kind == .clientGone {
            metrics.countResponse(route: routes.pattern(context.endpointPath), status: Int(error.status.code))
            throw CancellationError()
        } catch let error as RequestError {
            response = .error(error)
        } catch let error as HTTPError where error.status == .notFound {
            response = routes.missing(request.uri.path, method: request.method)
        } catch is NIOTooManyBytesError {
            response = .error(RequestError(.tooLarge, "the request body is too large", code: "request_too_large"))
        } catch is CancellationError {
            // A cancellation means that the connection has ended.
            metrics.countResponse(
                route: routes.pattern(context.endpointPath), status: Int(RequestError.clientGone.status.code))
            throw CancellationError()
        } catch {
            context.logger.error("a request failed", metadata: ["error": "\(error)", "path": "\(request.uri.path)"])
            response = .error(RequestError(.failed, "the server failed to answer this request; its log says why"))
        }
        metrics.countResponse(route: routes.pattern(context.endpointPath), status: Int(response.status.code))
        // A client would take a body after the header for the next response.
        return request.method == .head ? response.createHeadResponse() : response
    }
}

/// Checks the API key before anything else of a request is looked at.
struct BearerAuthentication: RouterMiddleware {
    typealias Context = ServingContext

    private let key: [UInt8]

    init(key: String) {
        self.key = Array(key.utf8)
    }

    func handle(
        _ request: Request, context: ServingContext,
        next: @concurrent (Request, ServingContext) async throws -> Response
    ) async throws -> Response {
        guard request.uri.path == RouteTable.health || isAuthorized(request) else {
            throw RequestError(
                .unauthorized, "this server asks for an API key: send the header 'Authorization: Bearer KEY'",
                code: "invalid_api_key")
        }
        return try await next(request, context)
    }

    private func isAuthorized(_ request: Request) -> Bool {
        guard let field = request.headers[.authorization] else { return false }
        let parts = field.split(separator: " ", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2, parts[0].lowercased() == "bearer" else { return false }
        return Self.isEqual(Array(parts[1].utf8), key)
    }

    /// Compares a presented key in a time that depends only on its length, not on how many of its bytes are right.
    static func isEqual(_ presented: [UInt8], _ key: [UInt8]) -> Bool {
        var difference: UInt8 = presented.count == key.count ? 0 : 1
        for (index, byte) in presented.enumerated() {
            difference |= byte ^ key[index % key.count]
        }
        return difference == 0
    }
}
