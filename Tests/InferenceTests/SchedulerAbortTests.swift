import Inference
import Testing

struct SchedulerAbortTests {
    @Test func `a queued request is gone at once`() throws {
        var rig = Rig { $0.maxRunningRequests = 1 }
        for id in 1...2 { try rig.submit(UInt64(id), makeRequest(4, new: 2, salt: id)) }
        rig.step()
        rig.abort(2)
        #expect(rig.transcripts[2]?.end == .finished(.abort, Usage(promptTokens: 4, completionTokens: 0)))
        #expect(rig.scheduler.status.queued == 0)
        rig.runToEnd()
        #expect(rig.transcripts[1] == rig.soloRun(makeRequest(4, new: 2, salt: 1)))
    }

    @Test func `between two chunks the pages are freed at once`() throws {
        var rig = Rig { $0.chunkedPrefillSize = 4 }
        try rig.submit(1, makeRequest(12, new: 2))
        rig.step()
        #expect(rig.scheduler.status.usedPages == 1)
        rig.abort(1)
        #expect(rig.scheduler.status.usedPages == 0)
        #expect(rig.scheduler.isIdle)
        #expect(rig.scheduler.nextStep() == nil)
    }

    @Test func `while decoding the tokens so far are counted`() throws {
        var rig = Rig()
        try rig.submit(1, makeRequest(4, new: 9))
        for _ in 0..<3 { rig.step() }
        rig.abort(1)
        #expect(rig.transcripts[1]?.end == .finished(.abort, Usage(promptTokens: 4, completionTokens: 3)))
        #expect(rig.scheduler.status.freePages + rig.scheduler.status.cachedPages == 16)
    }

    @Test(arguments: [0, 2]) func `in a step in flight the pages are kept until it ends`(steps: Int) throws {
        var rig = Rig { $0.chunkedPrefillSize = 8 }
        try rig.submit(1, makeRequest(12, new: 9, salt: 1))
        try rig.submit(2, makeRequest(3, new: 4, salt: 2))
        for _ in 0..<steps { rig.step() }
        let next = rig.scheduler.nextStep()
        let plan = try #require(next)
        let used = rig.scheduler.status.usedPages
        let before = try #require(rig.transcripts[1])
        rig.abort(1)
        #expect(rig.scheduler.checkInvariants() == [])
        #expect(rig.scheduler.status.usedPages == used)
        #expect(rig.scheduler.status.running == 1)
        #expect(!rig.scheduler.isIdle)
        rig.finish(plan)
        #expect(rig.scheduler.status.usedPages == plan.chunks[1].pages.count)
        #expect(rig.transcripts[1]?.tokens == before.tokens)
        rig.runToEnd()
        #expect(rig.transcripts[2] == rig.soloRun(makeRequest(3, new: 4, salt: 2)))
        #expect(rig.scheduler.status.freePages + rig.scheduler.status.cachedPages == 16)
    }

    @Test func `a request queued while a step is in flight can be aborted before it is seen`() throws {
        var rig = Rig()
        try rig.submit(1, makeRequest(4, new: 1, salt: 1))
        let next = rig.scheduler.nextStep()
        let plan = try #require(next)
        try rig.submit(2, makeRequest(4, new: 1, salt: 2))
        rig.abort(2)
        rig.finish(plan)
        #expect(rig.scheduler.isIdle)
    }

    @Test func `aborting twice, or what has ended, or what never was, does nothing`() throws {
        var rig = Rig()
        try rig.submit(1, makeRequest(4, new: 2, salt: 1))
        try rig.submit(2, makeRequest(4, new: 9, salt: 2))
        rig.step()
        let next = rig.scheduler.nextStep()
        let plan = try #require(next)
        #expect(rig.scheduler.abort(2).count == 1)
        #expect(rig.scheduler.abort(2) == [])
        rig.finish(plan)
        #expect(rig.scheduler.abort(2) == [])
        #expect(rig.scheduler.abort(1) == [])
        #expect(rig.scheduler.abort(77) == [])
    }

    @Test func `the number of an aborted request is free again when its step has ended`() throws {
        var rig = Rig()
        try rig.submit(1, makeRequest(4, new: 9, salt: 1))
        let next = rig.scheduler.nextStep()
        let plan = try #require(next)
        rig.abort(1)
        rig.finish(plan)
        try rig.submit(1, makeRequest(5, new: 2, salt: 8))
        rig.runToEnd()
        #expect(rig.transcripts[1] == rig.soloRun(makeRequest(5, new: 2, salt: 8)))
    }
}
