import Foundation
import Hummingbird

/// Protects a server without an API key from web pages of other origins. A browser lets any page send requests to this
/// server, and DNS rebinding lets a page use a name of its own for this server's address.
///
/// Requests that change something must not come from another origin. If the server listens only on a loopback address,
/// requests must also address it by a name of this machine.
struct OriginGuard: RouterMiddleware {
    typealias Context = ServingContext

    private let isLocal: Bool
    private let names: Set<String>
    private let port: Int
    private let origins: Set<String>

    init(_ configuration: ServerConfiguration) {
        port = configuration.port
        origins = Set(configuration.corsOrigins.map { $0.lowercased() })
        isLocal = configuration.isLocal
        names = Set(
            (["localhost", configuration.host, ProcessInfo.processInfo.hostName] + configuration.allowedHosts)
                .map { $0.lowercased() })
    }

    func handle(
        _ request: Request, context: ServingContext,
        next: @concurrent (Request, ServingContext) async throws -> Response
    ) async throws -> Response {
        // A request of HTTP/1.0 may name no host, which no browser sends.
        let named = request.head.authority?.lowercased()
        let authority = named ?? ""
        if isLocal, named != nil, !isOwn(Self.host(authority)) {
            throw RequestError(
                .forbidden,
                "'\(authority.prefix(128))' is no name of this server, which asks for no key and answers this machine only; "
                    + "use localhost, or start it with --allowed-host", code: "unknown_host")
        }
        if request.method == .get || request.method == .head || request.method == .options {
            return try await next(request, context)
        }
        // A path without a route has no effect: that there is none says more than what its body should be.
        if context.endpointPath != nil { try BodyReader.checkContentType(request) }
        if let origin = request.headers[.origin]?.lowercased(), !origins.contains(origin), !origins.contains("*"),
            !isSame(origin, authority)
        {
            throw RequestError(
                .forbidden,
                "pages of '\(origin.prefix(128))' may not use this server, which asks for no key; start it with --api-key, "
                    + "or with --cors-allow-origin for this origin", code: "foreign_origin")
        }
        return try await next(request, context)
    }

    private func isOwn(_ host: String) -> Bool {
        names.contains(host) || names.contains("*") || host.hasSuffix(".localhost") || Self.isAddress(host)
    }

    /// Returns whether a page's origin, `http://host:port`, is this server itself. Some proxies drop the port of
    /// `Host`; the origin then has the server's port.
    private func isSame(_ origin: String, _ authority: String) -> Bool {
        guard let scheme = origin.firstRange(of: "://") else { return false }
        let place = origin[scheme.upperBound...]
        return place == authority[...] || place == "\(authority):\(port)"[...]
    }

    /// Returns the host of an authority, without its port.
    static func host(_ authority: String) -> String {
        if authority.hasPrefix("["), let end = authority.firstIndex(of: "]") {
            return String(authority[authority.index(after: authority.startIndex)..<end])
        }
        return String(authority.prefix { $0 != ":" })
    }

    /// Returns whether a host is an IP address, which no DNS name can stand for.
    private static func isAddress(_ host: String) -> Bool {
        var (v4, v6) = (in_addr(), in6_addr())
        return unsafe inet_pton(AF_INET, host, &v4) == 1 || inet_pton(AF_INET6, host, &v6) == 1
    }
}
