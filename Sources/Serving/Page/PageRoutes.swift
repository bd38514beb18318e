import Hummingbird
import Inference
import JSON
import Synchronization

/// Handles the server's own page: its files, and the figures and drawings that it shows. All strings of models and
/// clients reach the page as JSON, and its content policy allows nothing but the files that are served here.
struct PageRoutes: Sendable {
    static let path = "/"
    static let folder = "/page/"

    let configuration: ServerConfiguration
    let slot: ModelSlot
    private let timelines = WrittenTimeline()

    init(configuration: ServerConfiguration, slot: ModelSlot) {
        self.configuration = configuration
        self.slot = slot
    }

    /// The paths that need no API key: the page must be there before it can ask for one.
    static let openPaths = Set(PageFile.all.map(\.path))

    var routes: [RouteTable.Route] {
        PageFile.all.map { file in RouteTable.Route(.get, file.path) { request, _ in file.response(to: request) } } + [
            RouteTable.Route(.get, Self.folder + "layout.svg", layout),
            RouteTable.Route(.get, Self.folder + "ranks", ranks),
            RouteTable.Route(.get, Self.folder + "timeline", timeline),
        ]
    }

    /// The header fields of answers that change: they are kept nowhere, and are read as nothing but what they are.
    private static let headers: HTTPFields = [
        .cacheControl: "no-store", PageFile.noSniffing: "nosniff", PageFile.resourcePolicy: "same-origin",
    ]

    // MARK: - The drawing

    private func layout(_ request: Request, _ context: ServingContext) async throws -> Response {
        guard let drawing = configuration.drawing else {
            throw RequestError(.notFound, "this server has no drawing of its layout", code: "not_found")
        }
        var headers = Self.headers
        headers[.contentType] = "image/svg+xml"
        headers[PageFile.contentPolicy] = "default-src 'none'; frame-ancestors 'none'"
        return Response(
            status: .ok, headers: headers, body: ResponseBody(byteBuffer: ByteBuffer(string: drawing.svg)))
    }

    // MARK: - Figures

    /// Handles `GET /page/ranks`: the load, the KV pages and what each rank has done. Rates follow from two answers.
    private func ranks(_ request: Request, _ context: ServingContext) async throws -> Response {
        guard let engine = slot.loaded?.engine else {
            _ = try slot.service()
            throw RequestError(.unavailable, "the model is still being loaded", code: "loading")
        }
        let status = engine.status()
        let seconds = slot.started.duration(to: .now) / .seconds(1)
        let figures = JSONMember.list([
            "layout": .string(status.layout), "failure": .optional(status.failure),
            "draining": .bool(status.isDraining),
            // A clock of the server's, by which rates are computed.
            "seconds": .number(seconds), "steps": .integer(status.steps), "restarts": .integer(status.restarts),
            "running": .integer(status.running), "queued": .integer(status.queued),
            "prompt_tokens": .integer(status.promptTokens), "generated_tokens": .integer(status.generatedTokens),
            "preemptions": .integer(status.preemptions),
            "pages": .fields([
                "total": .integer(status.totalPages), "used": .integer(status.usedPages),
                "cached": .integer(status.cachedPages), "free": .integer(status.freePages),
                "tokens": .integer(status.pageSize),
            ]),
            "owners": .integer(status.keyOwners), "owner_unit": .integer(status.keyUnit),
            "ranks": .array(status.ranks.map(figures)),
        ])
        return .json(.object(figures), headers: Self.headers)
    }

    private func figures(of rank: RankStatus) -> JSONValue {
        let colours = configuration.drawing?.colours ?? []
        return .fields([
            "rank": .integer(rank.rank),
            "colour": .optional(colours.indices.contains(rank.rank) ? colours[rank.rank] : nil),
            "place": .object(rank.coordinates.map { JSONMember($0.axis, .integer($0.place)) }),
            "steps": .integer(rank.steps), "rows": .integer(rank.rows), "last_rows": .integer(rank.lastRows),
            "keys_scored": .integer(rank.keysScored), "keys_attended": .integer(rank.keysAttended),
            "busy_seconds": .number(rank.busySeconds), "collective_seconds": .number(rank.collectiveSeconds),
            "waiting_seconds": .number(rank.skewSeconds),
            "owner": .integer(rank.keyOwner), "owned_tokens": .integer(rank.ownedTokens),
        ])
    }

    // MARK: - The timeline

    /// Handles `GET /page/timeline`: what each rank did in the last step that was traced, or `null` before the first.
    /// Each request has one more step traced.
    private func timeline(_ request: Request, _ context: ServingContext) async throws -> Response {
        let found = try slot.service().engine.timeline()
        guard let found else { return .json(.null, headers: Self.headers) }
        return .json(written: timelines.json(of: found), headers: Self.headers)
    }
}

/// The drawing of the ranks, made once at the start.
package struct LayoutDrawing: Sendable, Equatable {
    package let svg: String
    /// The colour in which the drawing shows each rank, as `#rrggbb`.
    package let colours: [String]

    package init(svg: String, colours: [String]) {
        self.svg = svg
        self.colours = colours
    }
}

/// The last timeline as JSON text. It is written once, however many clients ask for it.
private final class WrittenTimeline: Sendable {
    private let last = Mutex<(timeline: StepTimeline, json: [UInt8])?>(nil)

    func json(of timeline: StepTimeline) -> [UInt8] {
        last.withLock { last in
            // Steps are counted anew after a restart.
            if let last, last.timeline.step == timeline.step, last.timeline.nanoseconds == timeline.nanoseconds {
                return last.json
            }
            let json = timeline.json.pythonBytes
            last = (timeline, json)
            return json
        }
    }
}

extension StepTimeline {
    /// The spans of each rank are a flat list of four numbers each: the index in `names`, the number of the piece (-1 for
    /// none), begin and length in nanoseconds.
    fileprivate var json: JSONValue {
        var names: [String] = []
        var indices: [String: Int] = [:]
        let ranks = ranks.map { rank in
            var spans: [JSONValue] = []
            spans.reserveCapacity(4 * rank.spans.count)
            for span in rank.spans {
                let index = indices[span.name] ?? names.count
                if index == names.count {
                    indices[span.name] = index
                    names.append(span.name)
                }
                spans += [
                    .integer(index), .integer(span.number ?? -1), .integer(span.begin), .integer(span.length),
                ]
            }
            return JSONValue.fields([
                "rank": .integer(rank.rank), "rows": .integer(rank.rows), "cut": .bool(rank.isCut),
                "spans": .array(spans),
            ])
        }
        return .fields([
            "step": .integer(step), "requests": .integer(requests), "nanoseconds": .integer(nanoseconds),
            "names": .array(names.map(JSONValue.string)), "ranks": .array(ranks),
        ])
    }
}
