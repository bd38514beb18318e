import KVCache
import TestSupport
import Testing

struct PagePoolTests {
    @Test func `pages are allocated lowest number first`() {
        var pool = PagePool(totalPages: 130, pageSize: 4)
        #expect(pool.allocate(3) == [0, 1, 2])
        #expect(pool.allocate(2) == [3, 4])
        pool.release([1, 3])
        #expect(pool.allocate(3) == [1, 3, 5])
        #expect(pool.allocate(0) == [])
        #expect(pool.checkInvariants() == [])
    }

    @Test func `an allocation fails as a whole if too few pages are free`() {
        var pool = PagePool(totalPages: 5, pageSize: 1)
        #expect(pool.allocate(3) == [0, 1, 2])
        #expect(pool.allocate(3) == nil)
        #expect(pool.freePages == 2)
        #expect(pool.allocate(2) == [3, 4])
        #expect(pool.allocate(1) == nil)
        #expect(pool.usedPages == 5)
    }

    @Test func `a shared page is free only after its last owner`() {
        var pool = PagePool(totalPages: 2, pageSize: 8)
        #expect(pool.allocate(1) == [0])
        pool.retain(0)
        #expect(pool.owners(of: 0) == 2)
        pool.release(0)
        #expect(pool.freePages == 1)
        #expect(pool.allocate(1) == [1])
        pool.release(0)
        #expect(pool.owners(of: 0) == 0)
        #expect(pool.allocate(1) == [0])
    }

    @Test(arguments: [0, 1, 63, 64, 65, 128, 1000])
    func `every page of a pool can be used once`(total: Int) throws {
        var pool = PagePool(totalPages: total, pageSize: 2)
        let allocated = pool.allocate(total)
        let pages = try #require(allocated)
        #expect(pages == (0..<Int32(total)).map { $0 })
        #expect(pool.allocate(1) == nil)
        #expect(pool.checkInvariants() == [])
        pool.release(pages.reversed())
        #expect(pool.freePages == total)
        #expect(pool.checkInvariants() == [])
    }

    @Test func `tokens are rounded up to whole pages`() {
        let pool = PagePool(totalPages: 1, pageSize: 4)
        #expect([0, 1, 3, 4, 5, 8, 9].map { pool.pages(holding: $0) } == [0, 1, 1, 1, 2, 2, 3])
        #expect(pool.pages(holding: .max) == 1 << 61)
    }

    @Test(arguments: [1, 2, 3, UInt64.random(in: 0 ... .max)])
    func `random use agrees with a list of owners`(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        var pool = PagePool(totalPages: 150, pageSize: 1)
        var owners = [Int](repeating: 0, count: 150)
        for step in 0..<5_000 {
            let used = owners.indices.filter { owners[$0] > 0 }
            switch random.below(3) {
            case 0:
                let count = random.below(12)
                let expected = owners.indices.filter { owners[$0] == 0 }.prefix(count)
                let pages = pool.allocate(count)
                let whole = expected.count == count ? expected.map(Int32.init) : nil
                #expect(pages == whole, "seed \(seed), step \(step)")
                for page in pages ?? [] { owners[Int(page)] = 1 }
            case 1 where !used.isEmpty:
                let page = used[random.below(used.count)]
                pool.retain(Int32(page))
                owners[page] += 1
            case 2 where !used.isEmpty:
                let page = used[random.below(used.count)]
                pool.release(Int32(page))
                owners[page] -= 1
            default: break
            }
            #expect(pool.checkInvariants() == [], "seed \(seed), step \(step)")
            #expect(pool.freePages == owners.count { $0 == 0 }, "seed \(seed), step \(step)")
        }
    }

    @Test func `freeing a page twice ends the program`() async {
        await #expect(processExitsWith: .failure) {
            var pool = PagePool(totalPages: 4, pageSize: 4)
            let pages = pool.allocate(2)!
            pool.release(pages)
            pool.release(pages)
        }
    }

    @Test func `sharing a free page ends the program`() async {
        await #expect(processExitsWith: .failure) {
            var pool = PagePool(totalPages: 4, pageSize: 4)
            pool.retain(3)
        }
    }

    @Test func `a page size that is not a power of two ends the program`() async {
        await #expect(processExitsWith: .failure) {
            _ = PagePool(totalPages: 4, pageSize: 3)
        }
    }
}
