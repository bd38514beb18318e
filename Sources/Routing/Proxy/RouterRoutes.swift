import HTTPTypes
import Hummingbird
import JSON
import NIOHTTP1
import Serving
import Synchronization

/// The routes of a router: those of a server, which are forwarded, and its own.
struct RouterRoutes: Sendable {
    let configuration: RouterConfiguration
    let fleet: Fleet
    let gate: AdmissionGate
    let metrics: RouterMetrics
    let isDraining: @Sendable () -> Bool
    private let forwarder: Forwarder
    private let reader: BodyReader
    private let client: WorkerClient

    init(
        _ configuration: RouterConfiguration, _ fleet: Fleet, _ gate: AdmissionGate, _ metrics: RouterMetrics,
        isDraining: @escaping @Sendable () -> Bool
    ) {
        (self.configuration, self.fleet, self.gate, self.metrics) = (configuration, fleet, gate, metrics)
        self.isDraining = isDraining
        reader = BodyReader(configuration.server, memory: MemoryBudget(total: configuration.server.requestMemory))
        client = WorkerClient(key: configuration.workerKey ?? configuration.server.apiKeys.first)
        forwarder = Forwarder(
            configuration: configuration, fleet: fleet, gate: gate, metrics: metrics, reader: reader)
    }

    /// The routes that one worker answers.
    static let forwardedPosts = [
        "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/messages/count_tokens",
        "/generate", "/tokenize", "/v1/tokenize", "/detokenize", "/v1/detokenize",
    ]
    /// The routes without a body that one worker answers: for all, since all serve the same model, except that
    /// `/health_generate` tests only the worker that it is forwarded to.
    static let forwardedGets = [
        RouteTable.models + "/**", "/server_info", "/get_server_info", "/model_info", "/get_model_info",
        "/tokenizer_info", "/health_generate",
    ]
    /// The routes that concern every worker.
    static let broadcastPosts = ["/abort_request", "/flush_cache", "/reset_prefix_cache"]

    var table: RouteTable {
        typealias Route = RouteTable.Route
        return RouteTable(
            [
                Route(.get, RouteTable.health) { _, _ in .json(.fields(["status": .string("ok")])) },
                Route(.get, "/ready", ready), Route(.get, "/ping", ready), Route(.get, "/metrics", showMetrics),
                Route(.get, "/version") { _, _ in
                    .json(.fields(["version": .string(ServerConfiguration.version)]))
                },
                Route(.get, RouteTable.models, models), Route(.get, LoadReport.path, loads),
                Route(.get, "/get_load", load),
                Route(.get, Self.workers, listWorkers), Route(.post, Self.workers, addWorker),
                Route(.delete, Self.workers, removeWorker),
                Route(.put, "/generate", whileServing(forwarder.post)),
            ] + Self.forwardedPosts.map { Route(.post, $0, whileServing(forwarder.post)) }
                + Self.forwardedGets.map { Route(.get, $0, whileServing(forwarder.get)) }
                + Self.broadcastPosts.map { Route(.post, $0, broadcast) })
    }

    private static let workers = "/workers"

    /// Refuses new requests while the router drains.
    private func whileServing(_ handler: @escaping RouteTable.Handler) -> RouteTable.Handler {
        { request, context in
            try checkDraining()
            return try await handler(request, context)
        }
    }

    private func checkDraining() throws(RequestError) {
        guard isDraining() else { return }
        throw RequestError(.unavailable, "the router is shutting down; use another one", code: "shutting_down")
    }

    // MARK: - State

    private func ready(_ request: Request, _ context: ServingContext) async throws -> Response {
        try checkDraining()
        guard !fleet.available.isEmpty else { throw Self.noWorker }
        return .json(.fields(["status": .string("ready")]))
    }

    private static let noWorker = RequestError(
        .unavailable, "no worker is ready; GET /workers says why", code: "no_worker_available")

    private func showMetrics(_ request: Request, _ context: ServingContext) async throws -> Response {
        .text(metrics.text(fleet, gate.status), contentType: "text/plain; version=0.0.4; charset=utf-8")
    }

    /// Handles `GET /v1/models`: the models of all workers that are ready, each once.
    private func models(_ request: Request, _ context: ServingContext) async throws -> Response {
        var (seen, list): (Set<String>, [JSONValue]) = ([], [])
        for answer in await askAvailable(RouteTable.models) {
            for model in answer["data"]?.array ?? [] {
                guard let name = model["id"]?.string, seen.insert(name).inserted else { continue }
                list.append(model)
            }
        }
        guard !list.isEmpty else { throw Self.noWorker }
        return try ModelList.response(list, to: request)
    }

    /// Handles `/v1/loads`: the workers that are ready are the ranks of one server.
    private func loads(_ request: Request, _ context: ServingContext) async throws -> Response {
        let answers = await askAvailable(LoadReport.path)
        guard !answers.isEmpty else { throw Self.noWorker }
        return .json(LoadReport.joined(answers))
    }

    /// Handles `/get_load`, SGLang's older form of `/v1/loads`.
    private func load(_ request: Request, _ context: ServingContext) async throws -> Response {
        let answers = await askAvailable("/get_load")
        guard !answers.isEmpty else { throw Self.noWorker }
        return .json(.array(LoadReport.numbered(answers.flatMap { $0.array ?? [] })))
    }

    /// Handles the routes that concern every worker, and reports what each has said. A worker that does not answer its
    /// checks is not asked, and one whose breaker is open is not waited for longer than for a check; both are named.
    private func broadcast(_ request: Request, _ context: ServingContext) async throws -> Response {
        try checkDraining()
        let body = try await reader.collect(request, on: context.connection)
        let query = request.uri.query.map { "?\($0)" } ?? ""
        // Read once, since a worker may change while others are asked.
        let workers = fleet.workers.map { (worker: $0, health: $0.health) }
        let found = await askAll(
            workers.filter { $0.health.state != .unreachable }.map(\.worker), .POST, request.uri.path + query,
            body.bytes)
        let answers = found.filter { $0.status != 0 || !$0.isFailing }
        let skipped =
            workers.filter { $0.health.state == .unreachable }
            .map { Self.skipped($0.worker.address, .string($0.health.reason ?? "it cannot be reached")) }
            + found.filter { $0.status == 0 && $0.isFailing }.map { Self.skipped($0.address, $0.json) }
        // A request that all workers refuse is the client's fault, and their answer says what is wrong.
        if let first = answers.first, answers.allSatisfy({ [400, 413, 415].contains($0.status) }) {
            return .json(first.json, status: .init(code: first.status))
        }
        let hasSucceeded = answers.allSatisfy { $0.status == 200 }
        return .json(
            .fields([
                "success": .bool(hasSucceeded && !answers.isEmpty), "skipped": .array(skipped),
                "workers": .array(
                    answers.map { answer in
                        .fields([
                            "url": .string("\(answer.address)"), "status": .integer(answer.status),
                            "answer": answer.json,
                        ])
                    }),
            ]), status: answers.isEmpty ? .serviceUnavailable : hasSucceeded ? .ok : .badGateway)
    }

    /// Describes a worker that has not heard of what concerns every worker.
    private static func skipped(_ address: ServerAddress, _ reason: JSONValue) -> JSONValue {
        .fields(["url": .string("\(address)"), "reason": reason])
    }

    private struct WorkerAnswer: Sendable {
        let address: ServerAddress
        /// The status; 0 if there was no answer.
        let status: Int
        /// The answer, or why there is none.
        let json: JSONValue
        /// True if the worker's breaker is open.
        let isFailing: Bool
    }

    /// Returns what the workers that are ready answer to a `GET`, without those that fail.
    private func askAvailable(_ path: String) async -> [JSONValue] {
        await askAll(fleet.available, .GET, path, ByteBuffer())
            .filter { $0.status == 200 && !$0.json.isNull }.map(\.json)
    }

    /// Asks workers at the same time, and returns their answers in the order of the workers.
    private func askAll(
        _ workers: [RoutedWorker], _ method: HTTPMethod, _ path: String, _ body: ByteBuffer
    ) async -> [WorkerAnswer] {
        let now = ContinuousClock.now
        return await withTaskGroup(of: (Int, WorkerAnswer).self) { asking in
            for (index, worker) in workers.enumerated() {
                let isFailing = worker.breaker.state(at: now) == .open
                asking.addTask {
                    (index, await ask(worker.address, isFailing: isFailing, method, path, body))
                }
            }
            var answers: [(Int, WorkerAnswer)] = []
            for await answer in asking { answers.append(answer) }
            return answers.sorted { $0.0 < $1.0 }.map(\.1)
        }
    }

    private func ask(
        _ address: ServerAddress, isFailing: Bool, _ method: HTTPMethod, _ path: String, _ body: ByteBuffer
    ) async -> WorkerAnswer {
        do {
            let answer = try await client.send(
                method, path, to: address, body: body, within: isFailing ? configuration.checkTimeout : .seconds(30))
            let json = try? JSONValue(parsing: answer.body, limits: .strict)
            return WorkerAnswer(address: address, status: answer.status, json: json ?? .null, isFailing: isFailing)
        } catch {
            return WorkerAnswer(address: address, status: 0, json: .string("\(error)"), isFailing: isFailing)
        }
    }

    // MARK: - Workers

    private func listWorkers(_ request: Request, _ context: ServingContext) async throws -> Response {
        try checkOperator(request, context)
        let now = ContinuousClock.now
        let list = fleet.workers.map { worker in
            JSONValue.fields([
                "url": .string("\(worker.address)"), "worker_type": .string(worker.role.rawValue),
                "state": .string(worker.health.state.rawValue), "reason": .optional(worker.health.reason),
                "breaker": .string(worker.breaker.state(at: now).rawValue),
                "running_requests": .integer(worker.load.running), "other_requests": .integer(worker.load.others),
                "waiting_bytes": .integer(worker.load.waitingBytes), "sent_requests": .integer(worker.load.sent),
                "token_usage": .number(worker.load.usage),
            ])
        }
        return .json(.fields(["workers": .array(list), "total": .integer(list.count)]))
    }

    private func addWorker(_ request: Request, _ context: ServingContext) async throws -> Response {
        try checkOperator(request, context)
        let (address, role) = try await namedWorker(request, context)
        guard !configuration.isOwn(address) else {
            throw RequestError.invalid("url", "\(address) is the router itself", code: "worker_not_added")
        }
        do {
            try fleet.add(address, role)
        } catch {
            throw RequestError.invalid("url", "\(error)", code: "worker_not_added")
        }
        Log.write(.notice, "added \(address)")
        return .json(.fields(["success": .bool(true), "url": .string("\(address)")]), status: .accepted)
    }

    private func removeWorker(_ request: Request, _ context: ServingContext) async throws -> Response {
        try checkOperator(request, context)
        let (address, _) = try await namedWorker(request, context)
        guard fleet.remove(address) else {
            throw RequestError(.notFound, "there is no worker \(address)", parameter: "url", code: "not_found")
        }
        Log.write(.notice, "removed \(address)")
        return .json(.fields(["success": .bool(true), "url": .string("\(address)")]))
    }

    /// Reads `{"url": "http://…", "worker_type": "regular"}`.
    private func namedWorker(
        _ request: Request, _ context: ServingContext
    ) async throws -> (ServerAddress, RoutedWorker.Role) {
        let body = try await reader.collect(request, on: context.connection)
        return try await reader.parse(body, on: context.connection) { json in
            guard let url = json["url"]?.string else {
                throw RequestError.invalid("url", "url is missing; write {\"url\": \"http://127.0.0.1:30001\"}")
            }
            let name = json["worker_type"]?.string ?? RoutedWorker.Role.regular.rawValue
            guard let role = RoutedWorker.Role(rawValue: name) else {
                let legal = RoutedWorker.Role.allCases.map(\.rawValue).joined(separator: ", ")
                throw RequestError.invalid("worker_type", "worker_type is not one of \(legal)")
            }
            do {
                return (try ServerAddress(url), role)
            } catch {
                throw RequestError.invalid("url", "url: \(error)")
            }
        }
    }

    /// Lets operators only: whoever has the key or, without one, programs of this machine. A page in a browser of this
    /// machine is no operator, whatever origins may use the other routes and whatever name it gave this address.
    private func checkOperator(_ request: Request, _ context: ServingContext) throws(RequestError) {
        if !configuration.server.apiKeys.isEmpty { return }
        let isPage = request.headers[.origin] != nil || request.headers[.secFetchSite] != nil
        if context.connection.isLocal, !isPage { return }
        throw RequestError(
            .forbidden, "workers are shown and changed from this machine only; start the router with --api-key",
            code: "forbidden")
    }
}

extension HTTPField.Name {
    fileprivate static let secFetchSite = Self("Sec-Fetch-Site")!
}
