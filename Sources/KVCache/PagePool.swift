/// Which pages of the KV cache are in use, and by how many owners.
///
/// A page is a fixed run of `pageSize` tokens, named by its number in `0 ..< totalPages`. The pool hands out
/// numbers only; the bytes live on the ranks, at the same numbers on each. A value type, so that a scheduler
/// holding one stays a pure state machine.
package struct PagePool: Sendable {
    package let totalPages: Int
    /// Tokens in a page; a power of two.
    package let pageSize: Int
    /// Pages nobody owns.
    package private(set) var freePages: Int

    /// Owners of each page; 0 while it is free.
    private var owners: [Int32]
    /// One bit for each page, set while it is free.
    private var freeBits: [UInt64]
    /// No word before this one has a free page.
    private var firstFreeWord = 0

    package init(totalPages: Int, pageSize: Int) {
        precondition(
            (0...Int(Int32.max)).contains(totalPages), "a pool of \(totalPages) pages cannot be numbered in 32 bits")
        precondition(pageSize > 0 && pageSize & (pageSize - 1) == 0, "page size \(pageSize) is not a power of two")
        self.totalPages = totalPages
        self.pageSize = pageSize
        freePages = totalPages
        owners = [Int32](repeating: 0, count: totalPages)
        freeBits = [UInt64](repeating: .max, count: (totalPages + 63) / 64)
        if totalPages % 64 != 0 {
            freeBits[freeBits.count - 1] = (1 << UInt64(totalPages % 64)) - 1
        }
    }

    /// Pages that at least one owner holds.
    package var usedPages: Int { totalPages - freePages }

    /// How many pages hold `tokens` tokens, the last one perhaps in part.
    package func pages(holding tokens: Int) -> Int {
        (tokens >> pageSize.trailingZeroBitCount) + (tokens & (pageSize - 1) == 0 ? 0 : 1)
    }

    /// Takes `count` pages for one owner, lowest numbers first; all of them or, where too few are free, none.
    package mutating func allocate(_ count: Int) -> [Int32]? {
        precondition(count >= 0, "cannot allocate \(count) pages")
        guard count <= freePages else { return nil }
        var pages: [Int32] = []
        pages.reserveCapacity(count)
        while pages.count < count {
            while freeBits[firstFreeWord] == 0 { firstFreeWord += 1 }
            let word = freeBits[firstFreeWord]
            let page = firstFreeWord * 64 + word.trailingZeroBitCount
            freeBits[firstFreeWord] = word & (word - 1)
            owners[page] = 1
            pages.append(Int32(page))
        }
        freePages -= count
        return pages
    }

    /// Adds an owner to a page that already has one.
    package mutating func retain(_ page: Int32) {
        let index = usedIndex(page, "retained")
        owners[index] += 1
    }

    /// Takes one owner away; the page is free again when that was the last.
    package mutating func release(_ page: Int32) {
        let index = usedIndex(page, "released")
        owners[index] -= 1
        guard owners[index] == 0 else { return }
        freeBits[index / 64] |= 1 << UInt64(index % 64)
        firstFreeWord = min(firstFreeWord, index / 64)
        freePages += 1
    }

    /// Takes one owner away from each of `pages`.
    package mutating func release(_ pages: [Int32]) {
        for page in pages { release(page) }
    }

    /// How many owners a page has; 0 for a free page.
    package func owners(of page: Int32) -> Int { Int(owners[Int(page)]) }

    /// What is wrong with the books, in words; empty when free and used pages add up to all of them.
    package func checkInvariants() -> [String] {
        var problems: [String] = []
        var free = 0
        for page in 0..<totalPages {
            let isFree = freeBits[page / 64] >> UInt64(page % 64) & 1 == 1
            free += isFree ? 1 : 0
            if owners[page] < 0 { problems.append("page \(page) has \(owners[page]) owners") }
            if isFree != (owners[page] == 0) {
                problems.append("page \(page) is \(isFree ? "free" : "used") but has \(owners[page]) owners")
            }
            if isFree && page / 64 < firstFreeWord { problems.append("free page \(page) would not be found") }
        }
        if free != freePages { problems.append("\(free) pages are free, \(freePages) are said to be") }
        if freePages + usedPages != totalPages { problems.append("free and used pages do not add up to the total") }
        return problems
    }

    private func usedIndex(_ page: Int32, _ verb: String) -> Int {
        precondition(owners.indices.contains(Int(page)), "page \(page) is not one of the pool's \(totalPages)")
        precondition(owners[Int(page)] > 0, "page \(page) was \(verb) while free")
        return Int(page)
    }
}
