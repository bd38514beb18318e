import KVCache
import Tensors
import Testing

@Suite struct `A cache format` {
    /// Page borders and the parts of ranks are multiples of the longest entries, and only then of how often a window is read.
    @Test(arguments: [(2, true), (4, true), (8, true), (3, false), (16, false)])
    func `has entries of as many tokens as those every which a window is read`(every: Int, isLegal: Bool) {
        let entries = KeySet("entries", [.init(.f32, width: 4)], tokensPerEntry: 8)
        let window = KeySet("inputs", [.init(.f32, width: 4)], lifetime: .window(tokens: 16), readEvery: every)
        #expect((CacheFormat.windowWithoutEntry(in: [[entries], [window]]) == nil) == isLegal)
    }
}
