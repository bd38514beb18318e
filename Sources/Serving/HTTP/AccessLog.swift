import Hummingbird
import JSON

/// Writes a line for each request when its answer begins. Queries, headers and bodies may be secrets and are not
/// written.
struct AccessLog: RouterMiddleware {
    typealias Context = ServingContext

    func handle(
        _ request: Request, context: ServingContext,
        next: @concurrent (Request, ServingContext) async throws -> Response
    ) async throws -> Response {
        let start = ContinuousClock.now
        do {
            let response = try await next(request, context)
            write(request, context, status: Int(response.status.code), since: start)
            return response
        } catch {
            write(request, context, status: Int(RequestError.clientGone.status.code), since: start)
            throw error
        }
    }

    private func write(_ request: Request, _ context: ServingContext, status: Int, since start: ContinuousClock.Instant)
    {
        let milliseconds = (ContinuousClock.now - start) / .milliseconds(1)
        let path = String(request.uri.path.prefix(256)).filter { !$0.isNewline }
        Log.write(
            .info, "\(request.method.rawValue) \(path) \(status)",
            [
                JSONMember("milliseconds", .integer(Int(milliseconds.rounded()))),
                JSONMember("client", .string(context.connection.channel.remoteAddress?.ipAddress ?? "-")),
            ])
    }
}
