import Inference
import Testing

/// Returns the seconds of a chunk under a model in which attention's share grows with the tokens before it.
private func seconds(_ start: Int, _ rows: Int) -> Double {
    let (before, size) = (Double(start), Double(rows))
    return 3e-8 * (2 * before + size) * size + 1e-4 * size
}

@Suite struct `Chunks of a long prompt` {
    private static func rig(isDynamic: Bool) -> Rig {
        var configuration = SchedulerConfiguration(totalPages: 4096, contextLength: 40_000, vocabularySize: 50)
        configuration.pageSize = 16
        configuration.chunkedPrefillSize = 1024
        configuration.dynamicChunks = isDynamic
        return Rig(configuration)
    }

    /// Runs a request to its end and returns its prefill chunks.
    private static func prefill(_ rig: inout Rig, _ id: UInt64, _ count: Int) throws -> [StepPlan.Chunk] {
        try rig.submit(id, makeRequest(count, new: 1, salt: Int(id)))
        var chunks: [StepPlan.Chunk] = []
        while let plan = rig.scheduler.nextStep() {
            chunks += plan.chunks
            let took = seconds(plan.chunks[0].start, plan.chunks[0].tokens.count)
            rig.record(rig.scheduler.finish(rig.ranks.run(plan), seconds: took))
        }
        return chunks
    }

    @Test func `have one size unless asked otherwise`() throws {
        var rig = Self.rig(isDynamic: false)
        for id in 1...2 {
            let sizes = try Self.prefill(&rig, UInt64(id), 32_768).map(\.tokens.count)
            #expect(sizes == Array(repeating: 1024, count: 32))
        }
    }

    @Test func `take equal time once some have been measured`() throws {
        var rig = Self.rig(isDynamic: true)
        let first = try Self.prefill(&rig, 1, 32_768)
        #expect(first.prefix(8).allSatisfy { $0.tokens.count == 1024 }, "nothing is known yet")
        let chunks = try Self.prefill(&rig, 2, 32_768).dropLast()
        let target = seconds(0, 1024)
        #expect(chunks[0].tokens.count == 1024)
        #expect(chunks.last!.tokens.count < 512)
        for chunk in chunks {
            let count = chunk.tokens.count
            #expect(count % 16 == 0 && count >= 256)
            // Chunks have at least a quarter of the base size, and are multiples of a page.
            let grain = seconds(chunk.start, count + 16) - seconds(chunk.start, count)
            #expect(count == 256 || abs(seconds(chunk.start, count) - target) <= 1.1 * grain)
        }
    }

    @Test func `give the same text in any size`() throws {
        var (fixed, dynamic) = (Self.rig(isDynamic: false), Self.rig(isDynamic: true))
        for id: UInt64 in 1...2 {
            let counts = try [Self.prefill(&fixed, id, 20_000).count, Self.prefill(&dynamic, id, 20_000).count]
            #expect(id == 1 || counts[0] < counts[1])
            #expect(fixed.transcripts[id] == dynamic.transcripts[id])
        }
    }
}
