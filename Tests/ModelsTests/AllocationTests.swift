import CAllocations
import DeepSeekV32
import Modeling
import Models
import Parallelism
import Tensors
import TestSupport
import Testing

@Suite struct `A step` {
    /// The weights of the index queries are most of what the indexer reads.
    @Test(arguments: ["v32", "v32-fp8"])
    func `computes index queries only where a row selects`(name: String) throws {
        let golden = try Golden(name)
        let model = try golden.directory.load()
        let topK = try #require(model.description.selection?.topK)
        let layers = model.description.layers.count
        #expect(golden.prompt.count > topK + 2)
        let short = Forward(model, isRecording: false)
        _ = short.logits(Array(golden.prompt[..<topK]), chunks: [topK - 2, 1])
        #expect(short.work.indexed == 0)
        // These rows have the weights of the next token alone.
        let long = Forward(model, isRecording: false)
        _ = long.logits(Array(golden.prompt[..<(topK + 1)]), chunks: [topK, 1])
        #expect(long.work.indexed == layers)
        #expect(long.work.scored == layers * (topK + 1))
    }

    @Test(.enabled(if: braid_counts_allocations()), arguments: Golden.cases, [1, 3])
    func `allocates nothing on the heap inside the model`(name: String, threads: Int) throws {
        let golden = try Golden(name)
        let model = try golden.directory.load()
        let team = HelpedTeam(threads: threads)
        let forward = Forward(model, kernels: team.kernels, isRecording: false)
        // The counter sees ordinary allocations; otherwise this test could not fail.
        let before = braid_allocations()
        let some = [Int](repeating: 1, count: golden.prompt.count)
        #expect(some.count == golden.prompt.count && braid_allocations() > before)

        // The first run may allocate what the runtime initializes lazily.
        for _ in 0..<2 { _ = forward.logits(golden.prompt, chunks: [golden.prompt.count - 2, 1]) }
        let second = forward.allocations.suffix(3)
        #expect(second == [0, 0, 0], "a prefill chunk and two decode steps")
        #expect(team.operations > 0 || threads == 1)
    }
}
