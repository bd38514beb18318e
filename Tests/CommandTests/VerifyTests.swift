import Parallelism
import Testing
import braid

@Suite struct `The strategies to verify` {
    @Test func `are known by both vocabularies, in any order`() throws {
        #expect(try partitionStrategies("zigzag") == [.zigzag])
        #expect(try partitionStrategies("contiguous, interleave") == [.interleaved, .contiguous])
        #expect(try partitionStrategies("round-robin-split,in-seq-split,zigzag") == [.interleaved, .zigzag])
    }

    @Test(arguments: ["", "diagonal", "zigzag,", "zigzag contiguous"])
    func `are refused when one is none`(text: String) {
        #expect(throws: (any Error).self) { try partitionStrategies(text) }
    }
}
