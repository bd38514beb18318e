import HTTPTypes
import Hummingbird

/// A file of the server's page, which is part of the program.
struct PageFile: Sendable {
    let path: String
    private let contentType: String
    private let bytes: ByteBuffer
    /// Changes with the content, so that browsers need not load it again.
    private let tag: String

    private init(_ path: String, _ contentType: String, _ bytes: [UInt8]) {
        self.path = path
        self.contentType = contentType
        self.bytes = ByteBuffer(bytes: bytes)
        // FNV-1a. It tells versions apart, and protects nothing.
        let hash = bytes.reduce(0xcbf2_9ce4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x0000_0100_0000_01b3 }
        tag = "\"\(String(hash, radix: 16))\""
    }

    static let all: [PageFile] = {
        let (folder, script) = (PageRoutes.folder, "text/javascript; charset=utf-8")
        return [
            PageFile(PageRoutes.path, "text/html; charset=utf-8", PackageResources.index_html),
            PageFile(folder + "page.css", "text/css; charset=utf-8", PackageResources.page_css),
            PageFile(folder + "page.js", script, PackageResources.page_js),
            PageFile(folder + "server.js", script, PackageResources.server_js),
            PageFile(folder + "elements.js", script, PackageResources.elements_js),
            PageFile(folder + "chat.js", script, PackageResources.chat_js),
            PageFile(folder + "answer.js", script, PackageResources.answer_js),
            PageFile(folder + "ranks.js", script, PackageResources.ranks_js),
            PageFile(folder + "timeline.js", script, PackageResources.timeline_js),
            PageFile(folder + "icon.svg", "image/svg+xml", PackageResources.icon_svg),
        ]
    }()

    static let contentPolicy = HTTPField.Name("Content-Security-Policy")!
    static let noSniffing = HTTPField.Name("X-Content-Type-Options")!
    static let resourcePolicy = HTTPField.Name("Cross-Origin-Resource-Policy")!

    /// Scripts, styles and requests are those of this server only; `blob:` is for the drawing of the layout, which is
    /// fetched with the API key. Scripts cannot turn text into elements (trusted types), and no page may frame this one.
    private static let policy = """
        default-src 'self'; img-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'none'; \
        frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'
        """

    func response(to request: Request) -> Response {
        var headers: HTTPFields = [
            .contentType: contentType, .eTag: tag, .cacheControl: "no-cache", Self.contentPolicy: Self.policy,
            Self.noSniffing: "nosniff", Self.resourcePolicy: "same-origin", .init("X-Frame-Options")!: "DENY",
            .init("Referrer-Policy")!: "no-referrer", .init("Cross-Origin-Opener-Policy")!: "same-origin",
        ]
        if request.headers[.ifNoneMatch] == tag {
            headers[.contentType] = nil
            return Response(status: .notModified, headers: headers)
        }
        headers[.contentLength] = String(bytes.readableBytes)
        return Response(status: .ok, headers: headers, body: ResponseBody(byteBuffer: bytes))
    }
}
