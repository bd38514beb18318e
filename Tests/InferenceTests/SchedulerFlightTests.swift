import Inference
import Testing

/// These tests have several steps in flight at once, and several data groups.
struct SchedulerFlightTests {
    /// Returns as many plans as may be in flight.
    private func fill(_ rig: inout Rig) -> [StepPlan] {
        var plans: [StepPlan] = []
        while let plan = rig.scheduler.nextStep() { plans.append(plan) }
        return plans
    }

    @Test func `two chunks of one prompt are in flight at once, and its token follows the last`() throws {
        var rig = Rig {
            $0.maxStepsInFlight = 3
            $0.chunkedPrefillSize = 4
        }
        let request = makeRequest(10, new: 3, logProbs: LogProbOptions(topCount: 1, promptStart: 2))
        try rig.submit(1, request)
        let plans = fill(&rig)
        #expect(plans.map { $0.chunks[0].start } == [0, 4, 8])
        #expect(plans.map { $0.chunks[0].sample != nil } == [false, false, true])
        // The chunks score the tokens at 2...4, 5...8 and 9.
        #expect(plans.map { $0.chunks[0].score.count } == [3, 4, 1].map { $0 })
        for plan in plans { rig.finish(plan) }
        rig.runToEnd()
        #expect(rig.transcripts[1] == rig.soloRun(request))
        #expect(rig.scheduler.status.usedPages == 0)
    }

    @Test(arguments: 1...4) func `decode rows are spread over the steps in flight`(depth: Int) throws {
        var rig = Rig(pages: 64) { $0.maxStepsInFlight = depth }
        for id in 1...7 { try rig.submit(UInt64(id), makeRequest(3, new: 12, salt: id)) }
        while rig.transcripts.values.contains(where: { $0.tokens.isEmpty }) { rig.step() }
        let plans = fill(&rig)
        #expect(plans.count == depth)
        #expect(plans.allSatisfy { $0.chunks.count <= (7 + depth - 1) / depth })
        #expect(plans.flatMap(\.chunks).map(\.request).sorted() == Array(1...7))
        for plan in plans { rig.finish(plan) }
        rig.runToEnd()
        for id in 1...7 { #expect(rig.transcripts[UInt64(id)] == rig.soloRun(makeRequest(3, new: 12, salt: id))) }
    }

    /// Even if ranks finish before the next step is planned, the first requests must not get all decode rows.
    @Test(arguments: 1...4, [false, true])
    func `decode rows are shared fairly among requests`(depth: Int, isFilled: Bool) throws {
        var rig = Rig(pages: 64) { $0.maxStepsInFlight = depth }
        for id in 1...6 { try rig.submit(UInt64(id), makeRequest(3, new: 25, salt: id)) }
        while rig.transcripts.values.contains(where: { $0.tokens.isEmpty }) { rig.step() }
        let before = rig.transcripts.mapValues(\.tokens.count)
        for _ in 0..<8 * depth {
            if isFilled {
                for plan in fill(&rig) { rig.finish(plan) }
            } else {
                rig.step()
            }
            let progress = rig.transcripts.map { $1.tokens.count - before[$0]! }
            #expect(progress.max()! - progress.min()! <= 1, "\(progress)")
            if rig.scheduler.isIdle { break }
            if progress.max()! >= 8 { break }
        }
        #expect(rig.transcripts.allSatisfy { $1.tokens.count >= before[$0]! + 7 })
        rig.runToEnd()
        for id in 1...6 { #expect(rig.transcripts[UInt64(id)] == rig.soloRun(makeRequest(3, new: 25, salt: id))) }
    }

    @Test func `a request that waits for pages does not block those that have them`() throws {
        // Each request fills one page with its prompt; one page is left, for one of them.
        var rig = Rig(pages: 3) { $0.maxStepsInFlight = 2 }
        let requests = [makeRequest(4, new: 3, salt: 1), makeRequest(4, new: 3, salt: 2)]
        for (id, request) in requests.enumerated() { try rig.submit(UInt64(id), request) }
        #expect(rig.runToEnd(limit: 100).count < 20)
        for (id, request) in requests.enumerated() { #expect(rig.transcripts[UInt64(id)] == rig.soloRun(request)) }
        #expect(rig.scheduler.status.usedPages == 0)
    }

    @Test func `a request in flight is preempted only when its steps have ended`() throws {
        var rig = Rig(pages: 4) {
            $0.maxStepsInFlight = 2
            $0.chunkedPrefillSize = 4
        }
        let patient = makeRequest(12, new: 3, salt: 1)
        try rig.submit(1, patient)
        let plans = fill(&rig)
        #expect(plans.count == 2)
        let urgent = makeRequest(12, new: 2, salt: 2, priority: 1)
        try rig.submit(2, urgent)
        #expect(rig.scheduler.nextStep() == nil)
        rig.finish(plans[0])
        // The other step in flight still writes the request's pages.
        #expect(rig.scheduler.nextStep() == nil)
        #expect(rig.scheduler.status.preemptions == 0)
        rig.finish(plans[1])
        let next = rig.scheduler.nextStep()
        #expect(rows(next) == [2: 4])
        #expect(rig.scheduler.status.preemptions == 1)
        rig.finish(try #require(next))
        rig.runToEnd()
        #expect(rig.transcripts[1] == rig.soloRun(patient))
        #expect(rig.transcripts[2] == rig.soloRun(urgent))
    }

    @Test func `pages of a request that ends are freed when its last step has ended`() throws {
        var rig = Rig {
            $0.maxStepsInFlight = 2
            $0.chunkedPrefillSize = 4
        }
        try rig.submit(1, makeRequest(12, new: 3))
        let plans = fill(&rig)
        rig.abort(1)
        #expect(rig.scheduler.status.usedPages == 2)
        rig.finish(plans[0])
        #expect(rig.scheduler.status.usedPages == 2)
        #expect(!rig.scheduler.isIdle)
        rig.finish(plans[1])
        #expect(rig.scheduler.status.usedPages == 0)
        #expect(rig.scheduler.isIdle)
    }

    @Test func `requests are divided over data groups by their tokens`() throws {
        var rig = Rig(pages: 64) { $0.dataGroups = 3 }
        for (id, count) in [20, 5, 5, 5, 5].enumerated() {
            try rig.submit(UInt64(id), makeRequest(count, new: 4, salt: id))
        }
        let first = rig.step()
        let plan = try #require(first)
        #expect(plan.chunks.map(\.group) == [0, 1, 2, 1, 2])
        let later = rig.runToEnd().flatMap(\.chunks)
        #expect(later.allSatisfy { chunk in plan.chunks.first { $0.request == chunk.request }?.group == chunk.group })
    }
}
