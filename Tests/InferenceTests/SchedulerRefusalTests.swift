import Inference
import Testing

struct SchedulerRefusalTests {
    /// A fault is a change to a valid request that no engine can serve.
    struct Fault: Sendable, CustomTestStringConvertible {
        let parameter: String
        let hint: String
        let change: @Sendable (inout GenerationRequest) -> Void
        init(_ parameter: String, _ hint: String, _ change: @escaping @Sendable (inout GenerationRequest) -> Void) {
            self.parameter = parameter
            self.hint = hint
            self.change = change
        }
        var testDescription: String { "\(parameter): \(hint)" }
    }

    static let faults = [
        Fault("prompt", "is empty") { $0.prompt = [] },
        Fault("prompt", "token -1 at index 2") { $0.prompt[2] = -1 },
        Fault("prompt", "token 50 at index 0") { $0.prompt[0] = 50 },
        Fault("prompt", "has 33 tokens") { $0.prompt = [Int32](repeating: 1, count: 33) },
        Fault("prompt", "set max_new_tokens to 0") { $0.prompt = [Int32](repeating: 1, count: 32) },
        Fault("max_new_tokens", "is -1") { $0.sampling.maxNewTokens = -1 },
        Fault("max_new_tokens", "0 to 28") { $0.sampling.maxNewTokens = 29 },
        Fault("max_new_tokens", "0 to 28") { $0.sampling.maxNewTokens = .max },
        Fault("min_new_tokens", "is -1") { $0.sampling.minNewTokens = -1 },
        Fault("min_new_tokens", "0 to 28") { $0.sampling.minNewTokens = 29 },
        Fault("min_new_tokens", "0 to 5") {
            $0.sampling.maxNewTokens = 5
            $0.sampling.minNewTokens = 6
        },
        Fault("temperature", "is nan") { $0.sampling.temperature = .nan },
        Fault("temperature", "is inf") { $0.sampling.temperature = .infinity },
        Fault("temperature", "at least 0") { $0.sampling.temperature = -0.1 },
        Fault("top_p", "is nan") { $0.sampling.topP = .nan },
        Fault("top_p", "is 0.0") { $0.sampling.topP = 0 },
        Fault("top_p", "at most 1") { $0.sampling.topP = 1.0001 },
        Fault("top_k", "is -1") { $0.sampling.topK = -1 },
        Fault("min_p", "is nan") { $0.sampling.minP = .nan },
        Fault("min_p", "is -0.1") { $0.sampling.minP = -0.1 },
        Fault("min_p", "to 1") { $0.sampling.minP = 1.5 },
        Fault("frequency_penalty", "is nan") { $0.sampling.frequencyPenalty = .nan },
        Fault("frequency_penalty", "-2 to 2") { $0.sampling.frequencyPenalty = 2.1 },
        Fault("presence_penalty", "is -inf") { $0.sampling.presencePenalty = -.infinity },
        Fault("presence_penalty", "-2 to 2") { $0.sampling.presencePenalty = -2.1 },
        Fault("repetition_penalty", "is 0.0") { $0.sampling.repetitionPenalty = 0 },
        Fault("repetition_penalty", "is inf") { $0.sampling.repetitionPenalty = .infinity },
        Fault("repetition_penalty", "is nan") { $0.sampling.repetitionPenalty = .nan },
        Fault("logit_bias", "50 is not a token id") { $0.sampling.logitBias = [3: 1, 50: 1, 60: 1] },
        Fault("logit_bias", "-7 is not a token id") { $0.sampling.logitBias = [-7: 1] },
        Fault("logit_bias", "token 4 is nan") { $0.sampling.logitBias = [3: 1, 4: .nan] },
        Fault("logit_bias", "-100 to 100") { $0.sampling.logitBias = [4: 101] },
        Fault("stop_token_ids", "50 is not a token id") { $0.sampling.stopTokens = [0, 50] },
        Fault("top_logprobs", "0 to 20") { $0.logProbs = LogProbOptions(topCount: 21) },
        Fault("top_logprobs", "is -1") { $0.logProbs = LogProbOptions(topCount: -1) },
        Fault("prompt_logprobs_start", "is -1") { $0.logProbs = LogProbOptions(promptStart: -1) },
        Fault("prompt_logprobs_start", "0 to 3") { $0.logProbs = LogProbOptions(promptStart: 4) },
    ]

    @Test(arguments: faults) func `what cannot be served is refused by name`(fault: Fault) throws {
        var rig = Rig()
        var request = makeRequest(4, new: nil)
        fault.change(&request)
        let error = try #require(throws: EngineError.self) { try rig.submit(1, request) }
        guard case .invalid(let parameter, let message) = error else {
            Issue.record("\(error)")
            return
        }
        #expect(parameter == fault.parameter)
        #expect(message.contains(fault.hint), "\(message)")
        #expect(rig.scheduler.isIdle)
        #expect(rig.scheduler.nextStep() == nil)
    }

    @Test func `the bounds themselves are served`() throws {
        var rig = Rig()
        var request = makeRequest(4, new: 28, logProbs: LogProbOptions(topCount: 20, promptStart: 3))
        request.sampling.minNewTokens = 28
        request.sampling.topP = 1
        request.sampling.minP = 1
        request.sampling.temperature = 0
        request.sampling.frequencyPenalty = -2
        request.sampling.presencePenalty = 2
        request.sampling.repetitionPenalty = .leastNonzeroMagnitude
        request.sampling.logitBias = [0: -100, 49: 100]
        request.sampling.stopTokens = [0, 49]
        request.sampling.topK = .max
        try rig.submit(1, request)
        rig.runToEnd()
        #expect(rig.transcripts[1] == rig.soloRun(request))
    }

    @Test(arguments: [1, 3, 4, 5, 28, 31])
    func `prompt and new tokens may fill the context exactly`(count: Int) throws {
        for new in [nil, 32 - count] {
            var rig = Rig(pages: 8)
            try rig.submit(1, makeRequest(count, new: new))
            rig.runToEnd()
            #expect(rig.transcripts[1] == rig.soloRun(makeRequest(count, new: new)))
            #expect(rig.transcripts[1]?.tokens.count == 32 - count)
        }
    }

    @Test func `a prompt as long as the context can be scored`() throws {
        var rig = Rig(pages: 8) { $0.chunkedPrefillSize = 7 }
        let request = makeRequest(32, new: 0, logProbs: LogProbOptions(topCount: 2, promptStart: 0))
        try rig.submit(1, request)
        let plans = rig.runToEnd()
        #expect(plans.allSatisfy { $0.chunks[0].sample == nil })
        #expect(rig.transcripts[1] == rig.soloRun(request))
        #expect(rig.transcripts[1]?.scores.count == 32)
        #expect(rig.transcripts[1]?.end == .finished(.length, Usage(promptTokens: 32, completionTokens: 0)))
    }

    @Test(arguments: 0..<9) func `prompt scores begin where asked and come in order`(start: Int) throws {
        for chunk in [1, 2, 4, 9] {
            var rig = Rig { $0.chunkedPrefillSize = chunk }
            let request = makeRequest(9, new: 2, logProbs: LogProbOptions(topCount: 1, promptStart: start))
            try rig.submit(1, request)
            rig.runToEnd()
            #expect(rig.transcripts[1] == rig.soloRun(request))
            #expect(rig.transcripts[1]?.scores.count == 9 - start)
            #expect(rig.transcripts[1]?.scores.first?.logProb == nil ? start == 0 : start > 0)
        }
    }

    @Test func `a prompt of one token is scored without a row`() throws {
        var rig = Rig()
        let request = makeRequest(1, new: 1, logProbs: LogProbOptions(promptStart: 0))
        try rig.submit(1, request)
        rig.runToEnd()
        #expect(rig.transcripts[1] == rig.soloRun(request))
        #expect(rig.transcripts[1]?.scores == [TokenLogProbs(token: request.prompt[0])])
    }

    @Test func `the last new token needs no page`() throws {
        var rig = Rig(pages: 1)
        try rig.submit(1, makeRequest(4, new: 1))
        rig.runToEnd()
        #expect(rig.transcripts[1]?.tokens.count == 1)
        try rig.submit(2, makeRequest(2, new: 3))
        rig.runToEnd()
        #expect(rig.transcripts[2]?.tokens.count == 3)
    }

    @Test func `what the whole cache cannot hold is refused with the pages it needs`() throws {
        var rig = Rig(pages: 3)
        let prompt = try #require(throws: EngineError.self) { try rig.submit(1, makeRequest(13, new: 0)) }
        #expect(prompt.description.contains("prompt: needs 4 pages of 4 tokens, and the whole cache has 3"))
        #expect(prompt.description.contains("--max-total-tokens to at least 16"))
        let new = try #require(throws: EngineError.self) { try rig.submit(1, makeRequest(10, new: 12)) }
        #expect(new.description.contains("max_new_tokens: needs 6 pages"))
        var request = makeRequest(10, new: nil)
        request.sampling.minNewTokens = 4
        let least = try #require(throws: EngineError.self) { try rig.submit(1, request) }
        #expect(least.description.contains("min_new_tokens: needs 4 pages"))
    }

    @Test func `without a number of new tokens a request gets what the whole cache has room for`() throws {
        var rig = Rig(pages: 3)
        try rig.submit(1, makeRequest(10, new: nil))
        rig.runToEnd()
        #expect(rig.transcripts[1]?.end == .finished(.length, Usage(promptTokens: 10, completionTokens: 3)))
    }

    @Test func `a full queue tells clients to retry later`() throws {
        var rig = Rig {
            $0.maxQueuedRequests = 4
            $0.maxRunningRequests = 2
        }
        for id in 1...4 { try rig.submit(UInt64(id), makeRequest(2, new: 2, salt: id)) }
        #expect(throws: EngineError.overloaded(queued: 4, retryAfterSeconds: 3)) {
            try rig.submit(5, makeRequest(2, new: 2))
        }
        // A request that can never be served gets no advice to try again.
        let error = try #require(throws: EngineError.self) { try rig.submit(5, makeRequest(0, new: 2)) }
        #expect(error == .invalid(parameter: "prompt", message: "is empty; give at least one token"))
        rig.step()
        try rig.submit(5, makeRequest(2, new: 2, salt: 5))
        rig.runToEnd()
        #expect(rig.transcripts[5] == rig.soloRun(makeRequest(2, new: 2, salt: 5)))
    }

    @Test func `a configuration names all its problems with legal values beside them`() {
        var configuration = SchedulerConfiguration(totalPages: 0, contextLength: -4, vocabularySize: 10)
        configuration.pageSize = 48
        configuration.maxRunningRequests = 0
        configuration.maxQueuedRequests = -1
        configuration.chunkedPrefillSize = -5
        configuration.maxRowsPerStep = 0
        configuration.maxTopLogProbs = 11
        let problems = configuration.validate()
        #expect(
            Dictionary(uniqueKeysWithValues: problems.map { ($0.parameter, $0.nearestLegal) }) == [
                "total_pages": 1, "context_length": 1, "page_size": 64, "max_running_requests": 1,
                "max_queued_requests": 1, "chunked_prefill_size": -1, "max_rows_per_step": 1, "max_top_logprobs": 10,
            ])
        #expect(problems.allSatisfy { $0.description.contains("the nearest legal value is \($0.nearestLegal)") })
    }

    @Test(arguments: [(0, 1), (-9, 1), (.min, 1), (3, 4), (5, 4), (40, 32), (1 << 17, 1 << 16), (.max, 1 << 16)])
    func `the nearest legal page size is a power of two`(size: Int, nearest: Int) {
        var configuration = SchedulerConfiguration(totalPages: 1, contextLength: 1, vocabularySize: 100)
        configuration.pageSize = size
        #expect(configuration.validate().map(\.nearestLegal) == [nearest])
        configuration.pageSize = nearest
        #expect(configuration.validate() == [])
    }

    @Test func `a step holds a row for every running request`() {
        var configuration = SchedulerConfiguration(totalPages: 1, contextLength: 1, vocabularySize: 100)
        configuration.maxRunningRequests = 8
        configuration.maxRowsPerStep = 7
        #expect(configuration.validate().map(\.nearestLegal) == [8])
    }
}
