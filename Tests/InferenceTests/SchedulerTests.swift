import Inference
import Testing

struct SchedulerTests {
    @Test func `a long prompt is computed in chunks, and only the last one samples a token`() throws {
        var rig = Rig { $0.chunkedPrefillSize = 4 }
        let request = makeRequest(10, new: 2)
        try rig.submit(1, request)
        let plans = rig.runToEnd()
        #expect(plans.map { $0.chunks[0].start } == [0, 4, 8, 10])
        #expect(plans.map { $0.chunks[0].tokens.count } == [4, 4, 2, 1])
        #expect(plans.map { $0.chunks[0].sample != nil } == [false, false, true, true])
        #expect(plans.map { $0.chunks[0].pages.count } == [1, 2, 3, 3])
        #expect(plans.map(\.number) == [0, 1, 2, 3])
        #expect(rig.transcripts[1] == rig.soloRun(request))
        #expect(rig.scheduler.isIdle)
        #expect(rig.scheduler.status.freePages + rig.scheduler.status.cachedPages == 16)
    }

    @Test(arguments: [nil, -1]) func `without a chunk size a prompt is computed at once`(size: Int?) throws {
        var rig = Rig { $0.chunkedPrefillSize = size }
        try rig.submit(1, makeRequest(30, new: 1))
        #expect(rows(rig.step()) == [1: 30])
    }

    @Test func `decoding requests get their rows before prompts share the rest`() throws {
        var rig = Rig {
            $0.maxRowsPerStep = 8
            $0.maxRunningRequests = 4
        }
        try rig.submit(1, makeRequest(3, new: 9, salt: 1))
        rig.step()
        for id in 2...4 { try rig.submit(UInt64(id), makeRequest(5, new: 2, salt: id)) }
        #expect(rows(rig.step()) == [1: 1, 2: 5, 3: 2])
        #expect(rows(rig.step()) == [1: 1, 2: 1, 3: 3, 4: 3])
        rig.runToEnd()
        for id in 2...4 { #expect(rig.transcripts[UInt64(id)] == rig.soloRun(makeRequest(5, new: 2, salt: id))) }
    }

    @Test func `a request that does not fit holds back those behind it`() throws {
        var rig = Rig(pages: 4)
        try rig.submit(1, makeRequest(8, new: 8, salt: 1))
        try rig.submit(2, makeRequest(8, new: 2, salt: 2))
        try rig.submit(3, makeRequest(1, new: 1, salt: 3))
        #expect(rows(rig.step()) == [1: 8])
        #expect(rig.scheduler.status.queued == 2)
        var order: [UInt64] = []
        for plan in rig.runToEnd() { order += plan.chunks.map(\.request).filter { !order.contains($0) } }
        #expect(order == [1, 2, 3])
        #expect(rig.scheduler.status.preemptions == 0)
    }

    @Test func `no more requests run than allowed`() throws {
        var rig = Rig { $0.maxRunningRequests = 2 }
        for id in 1...3 { try rig.submit(UInt64(id), makeRequest(2, new: 3, salt: id)) }
        #expect(rows(rig.step()).count == 2)
        #expect(rig.scheduler.status.running == 2)
        #expect(rig.scheduler.status.queued == 1)
    }

    @Test func `pages are taken as tokens need them`() throws {
        var rig = Rig()
        try rig.submit(1, makeRequest(4, new: 28))
        rig.step()
        #expect(rig.scheduler.status.usedPages == 1)
        rig.step()
        #expect(rig.scheduler.status.usedPages == 2)
    }

    @Test func `the younger request is preempted, computed again, and nothing is reported twice`() throws {
        var rig = Rig(pages: 4) { $0.prefixCache = false }
        let options = LogProbOptions(topCount: 2, promptStart: 0)
        let requests = [1: makeRequest(4, new: 8, salt: 1), 2: makeRequest(4, new: 8, salt: 2, logProbs: options)]
        for (id, request) in requests.sorted(by: { $0.key < $1.key }) { try rig.submit(UInt64(id), request) }
        for _ in 0..<5 { rig.step() }
        #expect(rig.scheduler.status.usedPages == 4)
        let plan = rig.step()
        #expect(rows(plan) == [1: 1])
        #expect(rig.scheduler.status.preemptions == 1)
        #expect(rig.scheduler.status.queued == 1)
        let delivered = try #require(rig.transcripts[2])
        #expect(delivered.scores.count == 4)
        #expect(delivered.tokens.count == 5)
        let plans = rig.runToEnd()
        let again = try #require(plans.lazy.flatMap(\.chunks).first { $0.request == 2 })
        #expect(again.start == 0)
        #expect(again.tokens == requests[2]!.prompt + delivered.tokens.map(\.token))
        #expect(again.score.isEmpty)
        #expect(again.sample?.position == 9)
        for (id, request) in requests { #expect(rig.transcripts[UInt64(id)] == rig.soloRun(request)) }
        #expect(rig.scheduler.status.promptTokens == 8)
        #expect(rig.scheduler.status.generatedTokens == 16)
    }

    @Test func `the last in order keeps its pages while no other request needs them`() throws {
        var rig = Rig(pages: 5)
        for id in 1...2 { try rig.submit(UInt64(id), makeRequest(4, new: 8, salt: id)) }
        let plans = rig.runToEnd()
        #expect(plans[5].chunks.map(\.request) == [1])
        #expect(rig.scheduler.status.preemptions == 0)
        for id in 1...2 { #expect(rig.transcripts[UInt64(id)] == rig.soloRun(makeRequest(4, new: 8, salt: id))) }
    }

    @Test func `a request preempted within its prompt scores each prompt token once`() throws {
        var rig = Rig(pages: 8) {
            $0.chunkedPrefillSize = 3
            $0.maxRunningRequests = 1
        }
        let request = makeRequest(11, new: 3, logProbs: LogProbOptions(topCount: 1, promptStart: 1))
        try rig.submit(1, request)
        rig.step()
        rig.step()
        #expect(rig.transcripts[1]?.scores.count == 6)
        try rig.submit(2, makeRequest(2, new: 2, salt: 5, priority: 1))
        #expect(rows(rig.step()) == [2: 2])
        #expect(rig.scheduler.status.preemptions == 1)
        rig.runToEnd()
        #expect(rig.transcripts[1] == rig.soloRun(request))
    }

    @Test func `a larger priority goes first, equal ones in order of arrival`() throws {
        var rig = Rig { $0.maxRunningRequests = 1 }
        for (id, priority) in [(1, 0), (2, -1), (3, 5), (4, 5), (5, 0)] {
            try rig.submit(UInt64(id), makeRequest(2, new: 1, salt: id, priority: priority))
        }
        #expect(rig.runToEnd().map { $0.chunks[0].request } == [3, 4, 1, 5, 2])
    }

    @Test func `a larger priority preempts a running request, which loses no output`() throws {
        var rig = Rig { $0.maxRunningRequests = 1 }
        let patient = makeRequest(5, new: 6, salt: 1)
        try rig.submit(1, patient)
        rig.step()
        rig.step()
        try rig.submit(2, makeRequest(3, new: 2, salt: 2, priority: 1))
        #expect(rig.runToEnd().map { $0.chunks[0].request } == [2, 2, 1, 1, 1, 1])
        #expect(rig.transcripts[1] == rig.soloRun(patient))
    }

    @Test func `an equal priority preempts no request`() throws {
        var rig = Rig { $0.maxRunningRequests = 1 }
        try rig.submit(1, makeRequest(5, new: 3, salt: 1))
        rig.step()
        try rig.submit(2, makeRequest(3, new: 1, salt: 2))
        #expect(rig.runToEnd().map { $0.chunks[0].request } == [1, 1, 2])
        #expect(rig.scheduler.status.preemptions == 0)
    }

    @Test func `every running request advances in every step while pages last`() throws {
        var rig = Rig(pages: 64) {
            $0.maxRunningRequests = 5
            $0.maxRowsPerStep = 5
        }
        for id in 1...5 { try rig.submit(UInt64(id), makeRequest(3, new: 10, salt: id)) }
        while rig.transcripts.values.contains(where: { $0.tokens.isEmpty }) { rig.step() }
        for _ in 0..<3 { #expect(rows(rig.step()) == [1: 1, 2: 1, 3: 1, 4: 1, 5: 1]) }
    }

    @Test func `generation ends with a stop token, which is reported`() throws {
        var rig = Rig()
        var request = makeRequest(4, new: nil)
        let third = rig.soloRun(request).tokens[2].token
        request.sampling.stopTokens = [third]
        try rig.submit(1, request)
        rig.runToEnd()
        let transcript = try #require(rig.transcripts[1])
        #expect(transcript.tokens.last?.token == third)
        let usage = Usage(promptTokens: 4, completionTokens: transcript.tokens.count)
        #expect(transcript.end == .finished(.stop(token: third), usage))
        #expect(transcript == rig.soloRun(request))
    }

    @Test func `stop tokens are forbidden before the least number of new tokens`() throws {
        var rig = Rig()
        var request = makeRequest(4, new: 6)
        request.sampling.stopTokens = [Int32](0..<49).reduce(into: []) { $0.insert($1) }
        request.sampling.minNewTokens = 3
        try rig.submit(1, request)
        let plans = rig.runToEnd()
        #expect(plans.prefix(3).allSatisfy { $0.chunks[0].sample?.forbidden == request.sampling.stopTokens })
        #expect(plans.dropFirst(3).allSatisfy { $0.chunks[0].sample?.forbidden == [] })
        #expect(rig.transcripts[1]!.tokens.prefix(3).map(\.token) == [49, 49, 49])
        #expect(rig.transcripts[1] == rig.soloRun(request))
    }

    @Test func `a plan carries earlier tokens only where a penalty needs them`() throws {
        var rig = Rig()
        var counted = makeRequest(4, new: 3, salt: 1)
        counted.sampling.presencePenalty = 0.5
        var repeated = makeRequest(4, new: 3, salt: 2)
        repeated.sampling.repetitionPenalty = 1.5
        try rig.submit(1, makeRequest(4, new: 3))
        try rig.submit(2, counted)
        try rig.submit(3, repeated)
        rig.step()
        let plan = rig.step()
        let samples = try #require(plan).chunks.map { $0.sample! }
        #expect(samples.map(\.prompt) == [[], [], repeated.prompt.sorted()])
        #expect(samples[0].generated == [])
        #expect(samples[1].generated == [rig.transcripts[2]!.tokens[0].token])
        #expect(samples[2].generated == [rig.transcripts[3]!.tokens[0].token])
    }

    @Test func `all plans share one list of the tokens of a prompt that are penalized, also after a preemption`() throws
    {
        var rig = Rig(pages: 4)
        var request = makeRequest(7, new: 6, salt: 1)
        request.prompt = [9, 3, 9, 0, 3, 49, 9]
        request.sampling.repetitionPenalty = 1.5
        var other = makeRequest(3, new: 10, salt: 2)
        other.priority = 1
        try rig.submit(1, request)
        rig.step()
        try rig.submit(2, other)
        let samples = rig.runToEnd().flatMap { $0.chunks.filter { $0.request == 1 }.compactMap(\.sample) }
        #expect(rig.scheduler.status.preemptions > 0)
        #expect(samples.count >= 5 && samples.allSatisfy { $0.prompt == [0, 3, 9, 49] })
        let places = unsafe samples.map { unsafe $0.prompt.withUnsafeBufferPointer { $0.baseAddress } }
        #expect(unsafe Set(places).count == 1)
        #expect(rig.transcripts[1] == rig.soloRun(request))
    }

    @Test func `a failed request ends alone`() throws {
        var rig = Rig()
        for id in 1...3 { try rig.submit(UInt64(id), makeRequest(4, new: 3, salt: id)) }
        let next = rig.scheduler.nextStep()
        let plan = try #require(next)
        var result = rig.ranks.run(plan)
        result.chunks[1] = StepResult.ChunkResult(request: 2, failure: "the logits are not numbers")
        rig.record(rig.scheduler.finish(result))
        #expect(rig.scheduler.checkInvariants() == [])
        rig.runToEnd()
        #expect(rig.transcripts[2] == Transcript(end: .failed("the logits are not numbers")))
        for id in [1, 3] { #expect(rig.transcripts[UInt64(id)] == rig.soloRun(makeRequest(4, new: 3, salt: id))) }
        #expect(rig.scheduler.status.freePages + rig.scheduler.status.cachedPages == 16)
    }

    @Test func `lost ranks end every request and free every page`() throws {
        var rig = Rig { $0.maxRunningRequests = 2 }
        for id in 1...3 { try rig.submit(UInt64(id), makeRequest(4, new: 3, salt: id)) }
        _ = rig.scheduler.nextStep()
        rig.abort(1)
        rig.record(rig.scheduler.fail("rank 3 is gone"))
        #expect(rig.transcripts[2]?.end == .failed("rank 3 is gone"))
        #expect(rig.transcripts[3]?.end == .failed("rank 3 is gone"))
        #expect(rig.scheduler.isIdle)
        #expect(rig.scheduler.status.freePages == 16)
        #expect(rig.scheduler.status.failure == "rank 3 is gone")
        #expect(rig.scheduler.checkInvariants() == [])
        #expect(rig.scheduler.nextStep() == nil)
        #expect(throws: EngineError.failed("rank 3 is gone")) { try rig.submit(4, makeRequest(1, new: 1)) }
    }

    @Test func `draining refuses new requests and serves the others`() throws {
        var rig = Rig { $0.maxRunningRequests = 1 }
        for id in 1...2 { try rig.submit(UInt64(id), makeRequest(4, new: 3, salt: id)) }
        rig.step()
        rig.scheduler.drain()
        #expect(throws: EngineError.draining) { try rig.submit(3, makeRequest(1, new: 1)) }
        #expect(rig.scheduler.status.isDraining)
        #expect(!rig.scheduler.isIdle)
        rig.runToEnd()
        #expect(rig.scheduler.isIdle)
        for id in 1...2 { #expect(rig.transcripts[UInt64(id)] == rig.soloRun(makeRequest(4, new: 3, salt: id))) }
    }

    @Test func `no step is planned while as many as allowed are in flight`() throws {
        var rig = Rig()
        for id in 1...2 { try rig.submit(UInt64(id), makeRequest(4, new: 3, salt: id)) }
        #expect(rig.scheduler.nextStep() != nil)
        try rig.submit(3, makeRequest(4, new: 3, salt: 3))
        #expect(rig.scheduler.nextStep() == nil)
    }

    @Test func `a result for another plan ends the program`() async {
        await #expect(processExitsWith: .failure) {
            var rig = Rig()
            try rig.submit(1, makeRequest(4, new: 3))
            _ = rig.scheduler.nextStep()
            _ = rig.scheduler.finish(StepResult(chunks: []))
        }
    }
}
