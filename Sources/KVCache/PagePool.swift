/// The accounting of a KV cache's pages: it knows which pages are in use, and how many owners each has.
///
/// A page covers `pageSize` consecutive tokens and is identified by a number in `0 ..< totalPages`. The pool allocates
/// numbers only; every process stores the pages' contents under the same numbers. The pool is a value type, so a
/// scheduler that contains one stays a pure state machine.
package struct PagePool: Sendable {
    package let totalPages: Int
    /// The number of tokens in a page, a power of two.
    package let pageSize: Int
    /// The number of pages that have no owner.
    package private(set) var freePages: Int

    /// The number of owners of each page; 0 while the page is free.
    private var owners: [Int32]
    /// One bit for each page, which is set while the page is free.
    private var freeBits: [UInt64]
    /// The index of a word of `freeBits` before which no page is free.
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

    /// The number of pages that have at least one owner.
    package var usedPages: Int { totalPages - freePages }

    /// Returns the number of pages that hold `tokens` tokens; the last page may be partly filled.
    package func pages(holding tokens: Int) -> Int {
        (tokens >> pageSize.trailingZeroBitCount) + (tokens & (pageSize - 1) == 0 ? 0 : 1)
    }

    /// Allocates `count` pages for one owner, lowest numbers first. If fewer are free, it allocates none and returns
    /// `nil`.
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

    /// Removes one owner of a page. The page is free if that was the last owner.
    package mutating func release(_ page: Int32) {
        let index = usedIndex(page, "released")
        owners[index] -= 1
        guard owners[index] == 0 else { return }
        freeBits[index / 64] |= 1 << UInt64(index % 64)
        firstFreeWord = min(firstFreeWord, index / 64)
        freePages += 1
    }

    /// Removes one owner of each of `pages`.
    package mutating func release(_ pages: [Int32]) {
        for page in pages { release(page) }
    }

    /// Returns the number of owners of a page; 0 for a free page.
    package func owners(of page: Int32) -> Int { Int(owners[Int(page)]) }

    /// Returns the violated invariants in words: the list is empty if free and used pages add up to all pages.
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
