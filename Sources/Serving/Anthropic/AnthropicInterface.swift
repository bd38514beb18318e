import HTTPTypes
import Hummingbird

/// The requests of Anthropic's interface, whose answers have Anthropic's headers and errors.
enum AnthropicInterface {
    /// The header that all of Anthropic's clients send.
    private static let version = HTTPField.Name("anthropic-version")!

    /// Returns true for a request to a route of Anthropic's, and for one of Anthropic's clients to a route that OpenAI's
    /// interface has too.
    static func has(_ request: Request) -> Bool {
        let path = request.uri.path
        return isWithin(path, MessagesRoutes.path)
            || isWithin(path, RouteTable.models) && request.headers[version] != nil
    }

    private static func isWithin(_ path: String, _ route: String) -> Bool {
        path == route || path.hasPrefix(route + "/")
    }
}
