import JSON
import Routing
import TestSupport
import Testing

@Suite struct `The choice of a worker` {
    private static let start = ContinuousClock.now

    private static func text(_ letter: Character, blocks: Int = 8) -> RoutedText {
        RoutedText(
            of: .fields(["prompt": .string(String(repeating: letter, count: blocks * RoutedText.blockBytes))]))
    }

    /// Returns a pool of ready workers.
    private static func pool(
        _ policy: RoutingPolicy, _ count: Int, role: RoutedWorker.Role = .regular,
        _ change: (inout WorkerPool.Settings) -> Void = { _ in }
    ) throws -> WorkerPool {
        var settings = WorkerPool.Settings()
        settings.policy = policy
        change(&settings)
        var pool = WorkerPool(settings)
        for number in 0..<count {
            try pool.add(ServerAddress(host: "10.0.0.\(number)", port: 30000), role, at: start)
            pool.record(.ready, of: number, at: start)
        }
        return pool
    }

    @Test func `round robin takes all in turn, and skips those that are out`() throws {
        var pool = try Self.pool(.roundRobin, 3)
        let text = RoutedText()
        #expect((0..<6).map { _ in pool.assign(text, excluding: [], at: Self.start)?.worker } == [0, 1, 2, 0, 1, 2])
        pool.record(.notReady("loading"), of: 1, at: Self.start)
        let rest = (0..<4).compactMap { _ in pool.assign(text, excluding: [], at: Self.start)?.worker }
        #expect(rest.count == 4 && Set(rest) == [0, 2])
    }

    @Test func `random takes all of them`() throws {
        var pool = try Self.pool(.random, 3)
        let taken = (0..<200).compactMap { _ in pool.assign(RoutedText(), excluding: [], at: Self.start)?.worker }
        #expect(Set(taken) == [0, 1, 2])
    }

    @Test func `power of two never takes the one of the two that has more requests`() throws {
        var pool = try Self.pool(.powerOfTwo, 2)
        let first = try pool.take(RoutedText(), at: Self.start)
        for _ in 0..<20 {
            let next = try pool.take(RoutedText(), at: Self.start)
            #expect(next.worker != first.worker)
            pool.end(next, isAnswered: false, .succeeded, at: Self.start)
        }
    }

    @Test func `a known beginning draws a request to its worker, even if that has one more request`() throws {
        var pool = try Self.pool(.cacheAware, 4)
        let first = try pool.take(Self.text("a", blocks: 64), at: Self.start)
        pool.answer(first)
        for _ in 0..<8 {
            let again = try pool.take(Self.text("a", blocks: 64), at: Self.start)
            #expect(again.worker == first.worker)
        }
        #expect(pool.routedBytes > 0 && pool.matchedBytes * 10 > pool.routedBytes * 8)
    }

    @Test func `a hot worker gives away a request that costs less elsewhere, and keeps drawing others`() throws {
        var pool = try Self.pool(.cacheAware, 2)
        let first = try pool.take(Self.text("a", blocks: 16), at: Self.start)
        pool.answer(first)
        // 16 blocks are the work of four requests.
        let others = (0..<12).compactMap { _ in
            pool.assign(Self.text("a", blocks: 16), excluding: [], at: Self.start)?.worker
        }
        #expect(Set(others) == [0, 1] && others[0] == first.worker)
    }

    @Test func `prompts without a known beginning go to the least loaded, in turn if all are equal`() throws {
        var pool = try Self.pool(.cacheAware, 4)
        let taken = "abcdefgh".compactMap { pool.assign(Self.text($0), excluding: [], at: Self.start)?.worker }
        #expect(Set(taken.prefix(4)) == [0, 1, 2, 3] && Set(taken.suffix(4)) == [0, 1, 2, 3])
    }

    @Test func `the load is counted before a request is sent, and given back at its end`() throws {
        var pool = try Self.pool(.cacheAware, 1)
        let one = try pool.take(Self.text("a"), at: Self.start)
        let two = try pool.take(Self.text("b"), at: Self.start)
        #expect(pool.workers[0].load.running == 2 && pool.workers[0].load.waitingBytes >= 16 * RoutedText.blockBytes)
        pool.answer(one)
        #expect(pool.workers[0].load.waitingBytes < 9 * RoutedText.blockBytes)
        pool.end(one, isAnswered: true, .succeeded, at: Self.start)
        pool.end(two, isAnswered: false, .abandoned, at: Self.start)
        #expect(pool.workers[0].load.running == 0 && pool.workers[0].load.waitingBytes == 0)
        #expect(pool.workers[0].load.sent == 2)
    }

    @Test func `a worker's report adds the requests of others, not those of this router again`() throws {
        var pool = try Self.pool(.cacheAware, 2)
        let own = try pool.take(Self.text("a"), at: Self.start)
        pool.record(
            LoadReport(try JSONValue(parsing: #"{"aggregate":{"total_reqs":3,"avg_token_usage":0.5}}"#)), of: own.worker
        )
        #expect(pool.workers[own.worker].load.requests == 3 && pool.workers[own.worker].load.usage == 0.5)
        pool.end(own, isAnswered: false, .succeeded, at: Self.start)
        #expect(pool.workers[own.worker].load.requests == 2)
        #expect(pool.assign(Self.text("c"), excluding: [], at: Self.start)?.worker != own.worker)
    }

    @Test(arguments: [
        "7", "{}", #"{"aggregate":{"total_reqs":-5,"avg_token_usage":1e300},"loads":7}"#,
        #"{"aggregate":{"total_reqs":1e18,"avg_token_usage":-3},"loads":[{"max_total_num_tokens":9223372036854775807},{"max_total_num_tokens":9223372036854775807}]}"#,
    ])
    func `whatever a worker reports, numbers stay in their bounds`(_ body: String) throws {
        let report = LoadReport(try JSONValue(parsing: body))
        #expect((0...(1 << 40)).contains(report.requests) && (0...1).contains(report.usage))
        #expect((0...(1 << 40)).contains(report.totalTokens))
        var pool = try Self.pool(.cacheAware, 1)
        pool.record(report, of: 0)
        #expect(pool.assign(Self.text("a"), excluding: [], at: Self.start) != nil)
    }

    @Test func `a worker without room for a prompt comes last`() throws {
        var pool = try Self.pool(.cacheAware, 2)
        let full = #"{"aggregate":{"avg_token_usage":0.99},"loads":[{"max_total_num_tokens":1000}]}"#
        pool.record(LoadReport(try JSONValue(parsing: full)), of: 0)
        var busy: [Assignment] = []
        for letter in "abcdefghijklmnopqrstuvwxyz" {
            busy.append(try pool.take(Self.text(letter), at: Self.start))
        }
        #expect(busy.allSatisfy { $0.worker == 1 })
        #expect(pool.assign(Self.text("z"), excluding: [1], at: Self.start)?.worker == 0)
    }

    @Test func `a worker that has started again is drawn to no more`() throws {
        var pool = try Self.pool(.cacheAware, 2)
        let first = try pool.take(Self.text("a", blocks: 64), at: Self.start)
        pool.end(first, isAnswered: false, .succeeded, at: Self.start)
        let old = first.worker
        pool.record(LoadReport(try JSONValue(parsing: #"{"start_time":100}"#)), of: old)
        #expect(pool.assign(Self.text("a", blocks: 64), excluding: [], at: Self.start)?.worker == old)
        pool.record(LoadReport(try JSONValue(parsing: #"{"start_time":200}"#)), of: old)
        #expect(pool.assign(Self.text("a", blocks: 64), excluding: [], at: Self.start)?.worker != old)
    }

    @Test(arguments: [
        (RoutedWorker.Role.regular, "null", nil), (.regular, "decode", nil), (.prefill, "prefill", nil),
        (.decode, "decode", nil), (.regular, "prefill", "with --pd-disaggregation"),
        (.prefill, "decode", "are --prefill and --decode swapped?"),
        (.decode, "prefill", "are --prefill and --decode swapped?"),
        (.prefill, "null", "was started without --disaggregation-mode prefill"),
        (.decode, "null", "was started without --disaggregation-mode decode"),
    ])
    func `a worker whose role is not what it says of itself is told`(
        role: RoutedWorker.Role, mode: String, words: String?
    ) throws {
        var pool = try Self.pool(.cacheAware, 1, role: role)
        #expect(pool.warnings(about: 0).isEmpty)
        pool.record(LoadReport(try JSONValue(parsing: #"{"disaggregation_mode":"\#(mode)"}"#)), of: 0)
        #expect(pool.warnings(about: 0).count == (words == nil ? 0 : 1))
        if let words { #expect(pool.warnings(about: 0)[0].contains(words)) }
    }

    @Test func `workers of different models are told`() throws {
        var pool = try Self.pool(.cacheAware, 3)
        func report(_ name: String) throws -> LoadReport {
            LoadReport(try JSONValue(parsing: #"{"served_model_name":"\#(name)"}"#))
        }
        pool.record(try report("a"), of: 0)
        pool.record(try report("a"), of: 1)
        #expect((0...2).allSatisfy { pool.warnings(about: $0).isEmpty })
        pool.record(try report("b"), of: 2)
        #expect(pool.warnings(about: 2).count == 1)
        #expect(pool.warnings(about: 2)[0].hasPrefix("serves \"b\", but http://10.0.0.0:30000 serves \"a\""))
        #expect(pool.warnings(about: 0)[0].hasPrefix("serves \"a\", but http://10.0.0.2:30000 serves \"b\""))
    }

    @Test func `a decode server is chosen by its streams more than by prompts, which others compute`() throws {
        let candidate = RoutingPolicy.Candidate(load: WorkerLoad(), isDecodeServer: true)
        let regular = RoutingPolicy.Candidate(load: WorkerLoad())
        #expect(candidate.cost(ofBytes: 10_000) * 10 == regular.cost(ofBytes: 10_000))
        var pool = try Self.pool(.cacheAware, 2, role: .decode)
        // The work of receiving 8 KiB is less than that of one request.
        let first = try pool.take(Self.text("a", blocks: 32), at: Self.start).worker
        #expect(pool.assign(Self.text("a", blocks: 32), excluding: [], at: Self.start)?.worker != first)
    }

    @Test func `prefill servers get no requests`() throws {
        var pool = try Self.pool(.cacheAware, 2, role: .prefill)
        #expect(pool.assign(RoutedText(), excluding: [], at: Self.start) == nil)
        try pool.add(ServerAddress(host: "d", port: 1), .decode, at: Self.start)
        #expect(pool.assign(RoutedText(), excluding: [], at: Self.start) == nil, "no check has ended")
        pool.record(.ready, of: 2, at: Self.start)
        #expect(pool.assign(RoutedText(), excluding: [], at: Self.start)?.worker == 2)
    }

    @Test func `there are so many workers and no more, and a place is free again after a removal`() throws {
        var pool = try Self.pool(.cacheAware, PrefixIndex.maxSlots)
        let one = ServerAddress(host: "10.0.0.1", port: 30000)
        #expect(throws: WorkerPool.Problem.isThere("\(one)")) { try pool.add(one, .regular, at: Self.start) }
        let other = ServerAddress(host: "x", port: 1)
        #expect(throws: WorkerPool.Problem.tooMany) { try pool.add(other, .regular, at: Self.start) }
        let removals = [pool.remove(one), pool.remove(one)]
        #expect(removals == [true, false])
        try pool.add(other, .regular, at: Self.start)
        #expect(pool.workers.count == PrefixIndex.maxSlots)
    }

    @Test func `what a removed worker's requests come to changes no other worker`() throws {
        var pool = try Self.pool(.roundRobin, 2)
        let request = try pool.take(RoutedText(), at: Self.start)
        _ = pool.remove(request.address)
        pool.answer(request)
        pool.end(request, isAnswered: true, .failed, at: Self.start)
        #expect(pool.workers.map(\.load.running) == [0])
    }

    @Test func `no trace of requests leaves load behind`() throws {
        var random = SplitMix64.printed()
        var pool = try Self.pool(.cacheAware, 5)
        var running: [(Assignment, Bool)] = []
        for _ in 0..<3000 {
            switch Int.random(in: 0..<4, using: &random) {
            case 0, 1:
                let text = Self.text("abcdef".randomElement(using: &random)!)
                if let next = pool.assign(text, excluding: [], at: Self.start) { running.append((next, false)) }
            case 2:
                guard let place = running.indices.randomElement(using: &random), !running[place].1 else { continue }
                pool.answer(running[place].0)
                running[place].1 = true
            default:
                guard let place = running.indices.randomElement(using: &random) else { continue }
                let (request, isAnswered) = running.remove(at: place)
                let outcomes: [RequestOutcome] = [.succeeded, .abandoned, .refused(Refusal(.full, ""))]
                pool.end(request, isAnswered: isAnswered, outcomes.randomElement(using: &random)!, at: Self.start)
            }
        }
        for (request, isAnswered) in running { pool.end(request, isAnswered: isAnswered, .succeeded, at: Self.start) }
        #expect(pool.workers.allSatisfy { $0.load.running == 0 && $0.load.waitingBytes == 0 })
    }
}

extension WorkerPool {
    /// Assigns a request that a worker must get.
    fileprivate mutating func take(_ text: RoutedText, at now: ContinuousClock.Instant) throws -> Assignment {
        let assignment = assign(text, excluding: [], at: now)
        return try #require(assignment)
    }
}
