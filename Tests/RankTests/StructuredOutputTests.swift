import DeepSeekV32
import Dispatch
import Grammar
import Inference
import Modeling
import Models
import Parallelism
import Synchronization
import TestSupport
import Testing

/// Requests with grammars run beside others without: answers must be bitwise equal in all parallel configurations, and
/// have the requested form.
@Suite(.timeLimit(.minutes(15))) struct `Structured output` {
    private static let endOfText: Int32 = 1

    /// Returns a vocabulary for a model without one, with one or two printable characters per token.
    private static func vocabulary(_ size: Int) -> GrammarVocabulary {
        let bytes = (0..<size).map { id -> [UInt8] in
            if id <= 1 { return [] }
            let first = UInt8(32 + id % 95)
            return id < 120 ? [first] : [first, UInt8(32 + id * 7 % 95)]
        }
        return GrammarVocabulary(bytes: bytes, controlTokens: ["<end>": endOfText], size: size)
    }

    private static let sources: [GrammarSource?] = [
        .pattern("([a-f]{2}[0-9]+ ?)+"),
        nil,
        .jsonSchema(
            #"{"type":"object","properties":{"a":{"type":"integer","minimum":-5,"maximum":1200},"b":{"enum":["x",true]}},"required":["a","b"],"additionalProperties":false}"#
        ),
        .ebnf("root ::= item{3,9}\nitem ::= [A-Z] | \"(\" root \")\" | item \"*\""),
        .jsonObject,
        .choice(["yes", "no", "maybe"]),
        .afterReasoning(.pattern("[0-9]{4}")),
    ]

    private static func requests(_ golden: Golden) -> [GenerationRequest] {
        sources.enumerated().map { index, source in
            var sampling = SamplingParameters()
            sampling.temperature = index % 2 == 0 ? 1.3 : 0
            sampling.seed = UInt64(index)
            sampling.maxNewTokens = 24
            sampling.stopTokens = [endOfText]
            if index % 3 == 1 { sampling.repetitionPenalty = 1.2 }
            if index == 5 { sampling.minNewTokens = 20 }
            let own = (0..<index * 3).map { Int32(($0 * 31 + index * 17) % 200) }
            return GenerationRequest(
                prompt: golden.prompt + own, sampling: sampling, logProbs: LogProbOptions(topCount: 2), grammar: source)
        }
    }

    private static func answers(_ engine: Engine, _ requests: [GenerationRequest]) async throws -> [Answer] {
        await TestSupport.answers(try requests.map { try engine.submit($0) })
    }

    private static func configuration(
        drafts: Int, _ change: (inout EngineConfiguration) -> Void = { _ in }
    ) -> EngineConfiguration {
        var configuration = EngineConfiguration()
        configuration.pageSize = 4
        configuration.chunkedPrefillSize = 16
        configuration.maxTotalTokens = 600
        configuration.drafts = drafts
        change(&configuration)
        return configuration
    }

    /// Returns the answers of one rank without drafts, after checking their form.
    private static func reference(_ golden: Golden) async throws -> [Answer] {
        let model = try golden.directory.load()
        let cache = GrammarCache(vocabulary(model.vocabularySize))
        let engine = Engine(model, configuration(drafts: 0) { $0.prefixCache = false }, grammars: cache)
        defer { engine.stop() }
        let requests = requests(golden)
        let found = try await answers(engine, requests)
        for (request, answer) in zip(requests, found) {
            #expect(answer.failure == nil)
            guard let source = request.grammar else { continue }
            var state = try cache.grammar(for: source).start
            for token in answer.tokens.map(\.token) where token != endOfText {
                state = try #require(try state.advanced(by: token), "token \(token) of \(source)")
            }
            #expect((answer.finish == .stop(token: endOfText)) == (answer.tokens.last?.token == endOfText))
            if answer.finish == .stop(token: endOfText) { #expect(state.mayEnd, "\(source)") }
            if case .choice = source {
                // The grammar takes precedence over a minimum number of tokens.
                #expect(answer.finish == .stop(token: endOfText))
            }
        }
        return found
    }

    private static let layouts = [
        "one", "cp4 interleave", "cp4 ep4 zigzag alltoall", "tp2 dense2", "dp2", "pp2", "pp2 cp2 tp2 ep4 dense2",
        "cp4 dcp4",
    ]

    @Test(arguments: layouts)
    func `is the same in any layout, with drafts, chunks and preemption`(notation: String) async throws {
        let golden = try Golden(Golden.draftingCases[0])
        let expected = try await Self.reference(golden)
        let requests = Self.requests(golden)
        for drafts in [0, 3] {
            let model = HeldModel(try golden.directory.load(drafts: drafts > 0))
            let layout = try ParallelConfiguration(
                notation: notation, for: golden.directory.description.parallelShape)
            let longest = requests.map { $0.prompt.count + 24 }.max()!
            let engine = Engine(
                model,
                Self.configuration(drafts: drafts) {
                    $0.parallel = layout
                    $0.chunkedPrefillSize = drafts == 0 ? 5 : 16
                    // The cache holds little more than one request, so the others are preempted.
                    $0.maxTotalTokens = (longest + 40) / 4 * 4
                }, grammars: GrammarCache(Self.vocabulary(model.vocabularySize)))
            defer { engine.stop() }
            var found = try await model.answers(of: engine, to: requests)
            for round in 0..<50 {
                for index in requests.indices {
                    #expect(found[index] == expected[index], "request \(index), \(drafts) drafts")
                }
                // Requests that came together may just fit, as those of two data groups.
                if engine.status().preemptions > 0 { break }
                #expect(round < 49, "nothing was preempted")
                found = try await Self.answers(engine, requests)
            }
            if drafts > 0 {
                let count = engine.status().speculation
                #expect(count.accepted > 0 && count.accepted < count.drafted, "\(count)")
            }
            #expect(engine.checkInvariants() == [])
        }
    }

    @Test(arguments: [2, 3]) func `is the same where ranks live in several processes`(count: Int) async throws {
        let golden = try Golden(Golden.draftingCases[0])
        let expected = try await Self.reference(golden)
        let requests = Self.requests(golden)
        let transports = InMemoryTransport.network(count)
        defer { for transport in transports { transport.leave() } }
        let layout = try ParallelConfiguration(
            notation: "pp2 cp2 tp2 ep4 dense2", for: golden.directory.description.parallelShape)
        let model = try golden.directory.load(drafts: true)
        let found = try onEveryRank(of: count) { process -> [Answer]? in
            let processes = Processes(transports[process])
            // Each process compiles the grammars itself.
            let cache = GrammarCache(Self.vocabulary(model.vocabularySize))
            guard process == 0 else {
                try RankFollower(model, processes, grammars: cache).run()
                return nil
            }
            defer { RankFollower.dismiss(processes) }
            let engine = Engine(
                model, Self.configuration(drafts: 2) { $0.parallel = layout }, processes: processes, grammars: cache)
            defer { engine.stop() }
            return try waitFor { try await Self.answers(engine, requests) }
        }[0]!
        for index in requests.indices { #expect(found[index] == expected[index], "request \(index)") }
    }

    @Test func `a grammar that cannot be compiled, or has no end, is refused before it is queued`() throws {
        let golden = try Golden(Golden.draftingCases[0])
        let model = try golden.directory.load()
        let engine = Engine(
            model, Self.configuration(drafts: 0), grammars: GrammarCache(Self.vocabulary(model.vocabularySize)))
        let without = Engine(model, Self.configuration(drafts: 0))
        defer {
            engine.stop()
            without.stop()
        }
        var request = Self.requests(golden)[0]
        #expect(throws: EngineError.self) { try without.submit(request) }
        request.grammar = .pattern("(((a")
        #expect(throws: EngineError.self) { try engine.submit(request) }
        request.grammar = .jsonObject
        request.sampling.stopTokens = []
        #expect(throws: EngineError.self) { try engine.submit(request) }
        #expect(engine.status().queued == 0 && engine.status().running == 0)
    }

    @Test func `a stop token ends an answer only where it is complete, and is not in it elsewhere`() async throws {
        let golden = try Golden(Golden.draftingCases[0])
        let model = try golden.directory.load()
        let vocabulary = Self.vocabulary(model.vocabularySize)
        let cache = GrammarCache(vocabulary)
        let engine = Engine(model, Self.configuration(drafts: 0), grammars: cache)
        defer { engine.stop() }
        func tokens(of text: String) -> [Int32] {
            (0..<Int32(vocabulary.size)).filter { vocabulary.bytes(of: $0) == Array(text.utf8) }
        }
        func request(_ source: GrammarSource, _ stop: [Int32], bias: [Int32: Float] = [:]) -> GenerationRequest {
            var request = Self.requests(golden)[0]
            (request.grammar, request.sampling.stopTokens) = (source, Set(stop + [Self.endOfText]))
            request.sampling.logitBias = bias
            return request
        }
        // It is text, and the model wants it: it comes where the text before it is complete.
        let wanted = try #require(tokens(of: "b").first)
        let bias = [wanted: Float(100)]
        let answers = try await Self.answers(
            engine,
            [
                request(.pattern("a{3}b*"), [wanted], bias: bias), request(.pattern("(a|b){4}"), [wanted], bias: bias),
                request(.pattern("b"), tokens(of: "b")),
            ])
        #expect(answers[0].finish == .stop(token: wanted) && answers[0].tokens.last?.token == wanted)
        for answer in answers.prefix(2) {
            #expect(answer.failure == nil && answer.tokens.dropLast().allSatisfy { $0.token != wanted })
        }
        #expect(answers[1].finish == .stop(token: wanted))
        #expect(answers[2].failure?.contains("only tokens of stop_token_ids") == true, "\(answers[2])")
    }

    @Test func `a grammar that becomes too ambiguous fails its own request only`() async throws {
        let golden = try Golden(Golden.draftingCases[0])
        let model = try golden.directory.load()
        let engine = Engine(
            model, Self.configuration(drafts: 0), grammars: GrammarCache(Self.vocabulary(model.vocabularySize)))
        defer { engine.stop() }
        var requests = Self.requests(golden)
        // Every letter may belong to very many states of the grammar.
        requests[0].grammar = .ebnf("root ::= x{99999}\nx ::= [a-h]? [i-p]? [q-z]? [A-M]? [N-Z]? [0-9]?")
        let found = try await Self.answers(engine, requests)
        #expect(found[0].failure?.contains("too ambiguous") == true, "\(found[0])")
        for answer in found.dropFirst() { #expect(answer.failure == nil) }
    }
}

/// Runs an asynchronous function from a thread that may block, for less time than `onEveryRank` takes.
private func waitFor<Value: Sendable>(_ body: @escaping @Sendable () async throws -> Value) throws -> Value {
    let done = DispatchSemaphore(value: 0)
    let box = Mutex<Result<Value, any Error>?>(nil)
    Task.detached {
        let result: Result<Value, any Error>
        do { result = .success(try await body()) } catch { result = .failure(error) }
        box.withLock { $0 = result }
        done.signal()
    }
    try #require(done.wait(timeout: .now() + 240) == .success, "no answers within 240 s")
    return try box.withLock { $0! }.get()
}
