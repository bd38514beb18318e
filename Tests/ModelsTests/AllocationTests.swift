import CAllocations
import Modeling
import Models
import Tensors
import TestSupport
import Testing

@Suite struct `A step` {
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

        // The first run may set up what the runtime makes lazily.
        for _ in 0..<2 { _ = forward.logits(golden.prompt, chunks: [golden.prompt.count - 2, 1]) }
        let second = forward.allocations.suffix(3)
        #expect(second == [0, 0, 0], "a prefill chunk and two decode steps")
        #expect(team.operations > 0 || threads == 1)
    }
}
