import KVTransport
import NIOCore
import Testing

@Suite struct `A limit of lines` {
    @Test func `lets ten lines of a minute through, and tells how many it has left out`() {
        var limit = LineLimit()
        let start = NIODeadline.uptimeNanoseconds(5_000_000_000)
        let first = (0..<25).compactMap { limit.admit("line \($0)", at: start + .seconds(Int64($0))) }
        #expect(first == (0..<10).map { "line \($0)" })
        #expect(
            limit.admit("later", at: start + .seconds(60)) == "later (15 lines of this kind were left out before)")
        #expect(limit.admit("more", at: start + .seconds(61)) == "more")
        #expect(limit.admit("much later", at: start + .seconds(600)) == "much later")
    }
}
