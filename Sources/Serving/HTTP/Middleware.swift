import HTTPTypes
import Hummingbird
import Logging
import NIOCore

/// Turns every error into a response in the format of the route, and counts the responses.
struct ErrorResponses: RouterMiddleware {
    typealias Context = ServingContext

    /// Called with the route's pattern and the status of every response.
    let countResponse: @Sendable (_ route: String, _ status: Int) -> Void
    let routes: RouteTable

    func handle(
        _ request: Request, context: ServingContext,
        next: @concurrent (Request, ServingContext) async throws -> Response
    ) async throws -> Response {
        var response: Response
        do {
            response = try await next(request, context)
        } catch let error as RequestError where error.kind == .clientGone {
            countResponse(routes.pattern(context.endpointPath), Int(error.status.code))
            // A client that has closed only its sending side must not take an error of the layers below for an answer.
            context.connection.close()
            throw CancellationError()
        } catch let error as RequestError {
            response = .error(error, request)
        } catch let error as HTTPError where error.status == .notFound {
            response = routes.missing(request)
        } catch is NIOTooManyBytesError {
            response = .error(
                RequestError(.tooLarge, "the request body is too large", code: "request_too_large"), request)
        } catch is CancellationError {
            // A cancellation means that the connection has ended.
            countResponse(routes.pattern(context.endpointPath), Int(RequestError.clientGone.status.code))
            context.connection.close()
            throw CancellationError()
        } catch {
            context.logger.error("a request failed", metadata: ["error": "\(error)", "path": "\(request.uri.path)"])
            response = .error(
                RequestError(.failed, "the server failed to answer this request; its log says why"), request)
        }
        countResponse(routes.pattern(context.endpointPath), Int(response.status.code))
        // A client would take a body after the header for the next response.
        return request.method == .head ? response.createHeadResponse() : response
    }
}

/// Checks the API key before anything else of a request is looked at.
struct BearerAuthentication: RouterMiddleware {
    typealias Context = ServingContext

    private let keys: [[UInt8]]
    private let openPaths: Set<String>
    /// The paths that need no key to be read.
    private let readablePaths: Set<String>

    init(_ configuration: ServerConfiguration) {
        keys = configuration.apiKeys.map { Array($0.utf8) }
        openPaths = Set([RouteTable.health] + (configuration.opensMonitoring ? RouteTable.monitoring : []))
        readablePaths = configuration.hasPage ? PageRoutes.openPaths : []
    }

    func handle(
        _ request: Request, context: ServingContext,
        next: @concurrent (Request, ServingContext) async throws -> Response
    ) async throws -> Response {
        guard isOpen(request) || isAuthorized(request) else {
            let isMissing = request.headers[.authorization] == nil && request.headers[Self.plainKey] == nil
            throw RequestError(
                .unauthorized,
                (isMissing ? "this server asks for an API key" : "the API key is not this server's")
                    + ": send the header 'Authorization: Bearer KEY'",
                code: "invalid_api_key")
        }
        return try await next(request, context)
    }

    private func isOpen(_ request: Request) -> Bool {
        openPaths.contains(request.uri.path)
            || (request.method == .get || request.method == .head) && readablePaths.contains(request.uri.path)
    }

    private func isAuthorized(_ request: Request) -> Bool {
        // Clients of Anthropic send the key by itself.
        if let presented = request.headers[Self.plainKey], isKey(presented[...]) { return true }
        guard let field = request.headers[.authorization] else { return false }
        let parts = field.split(separator: " ", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2, parts[0].lowercased() == "bearer" else { return false }
        return isKey(parts[1])
    }

    /// Returns true for a valid key, after comparing the text with all of them.
    private func isKey(_ presented: Substring) -> Bool {
        let bytes = Array(presented.utf8)
        return keys.count { Self.isEqual(bytes, $0) } > 0
    }

    private static let plainKey = HTTPField.Name("x-api-key")!

    /// Compares a presented key in a time that depends only on its length, not on how many of its bytes are right.
    static func isEqual(_ presented: [UInt8], _ key: [UInt8]) -> Bool {
        var difference: UInt8 = presented.count == key.count ? 0 : 1
        for (index, byte) in presented.enumerated() {
            difference |= byte ^ key[index % key.count]
        }
        return difference == 0
    }
}
