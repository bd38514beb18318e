import Serving
import Testing

@Suite struct `The memory for requests` {
    @Test func `is an eighth of what a server has available, within bounds`() {
        #expect(MemoryBudget.total(of: 4 << 30) == 512 << 20)
        #expect(MemoryBudget.total(of: 1 << 50) == MemoryBudget.usualTotal)
        #expect(MemoryBudget.total(of: 0) == 64 << 20)
    }
}
