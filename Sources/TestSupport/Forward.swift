import CAllocations
package import KVCache
package import Modeling
package import Parallelism
package import Tensors

/// Runs a model over one prompt without a scheduler, in chunks of any size, and keeps every row's logits.
package final class Forward {
    private let model: any Model
    private let seat: Seat
    private let cache: CacheStore
    private let pageSize: Int
    package let recorder = StageRecorder()
    private let isRecording: Bool
    /// The work of the steps so far.
    package var work: Work { seat.work }
    /// The number of heap allocations inside the model in each step.
    package private(set) var allocations: [UInt64] = []
    /// The number of kernel calls inside the layers in each step.
    package private(set) var kernelCalls: [Int] = []

    /// Creates a cache and a single rank for a model.
    ///
    /// - Parameters:
    ///   - capacity: the number of positions in the cache.
    ///   - pageSize: the smallest page size; pages have at least as many tokens as the model's longest entry.
    package init(
        _ model: any Model, cacheType: CacheType = .float32, kernels: Kernels = .best, capacity: Int = 1024,
        pageSize: Int = 4, isRecording: Bool = true
    ) {
        self.model = model
        let pageSize = max(pageSize, model.positionAlignment)
        self.pageSize = pageSize
        self.isRecording = isRecording
        seat = Seat(kernels: kernels)
        let pages = (capacity + pageSize - 1) / pageSize
        cache = CacheStore(
            format: model.cacheFormat(cacheType, pageSize: pageSize), pages: pages, windowPages: pages)
    }

    /// Returns the logits of every token, computed in chunks; the last chunk size repeats.
    package func logits(_ tokens: [Int32], chunks: [Int] = [.max]) -> [[Float]] {
        var logits: [[Float]] = []
        var sizes = chunks[...]
        while logits.count < tokens.count {
            let size = sizes.count > 1 ? sizes.removeFirst() : sizes.first!
            let range = logits.count..<min(tokens.count, size == .max ? .max : logits.count + size)
            logits += run(Array(tokens[range]), at: range.lowerBound).logits
        }
        return logits
    }

    /// Returns the next-token block's logits. For every token that has a next one, they score the token after next, and
    /// are computed in chunks of `chunk`. Further rows are computed from the block's own states and most likely tokens,
    /// so that `count` drafts follow the last token in all.
    package func drafts(_ tokens: [Int32], count: Int, chunk: Int = .max) -> [[Float]] {
        var logits: [[Float]] = []
        var state: [[Float]] = []
        while logits.count < tokens.count - 1 {
            let rows = logits.count..<min(tokens.count - 1, chunk == .max ? .max : logits.count + chunk)
            let states = run(Array(tokens[rows]), at: rows.lowerBound).states
            let following = Array(tokens[rows.lowerBound + 1..<rows.upperBound + 1])
            let found = run(following, at: rows.lowerBound, behind: states, continues: false)
            logits += found.logits
            state = [found.states.last!]
        }
        for _ in 1..<count {
            let best = logits.last!.indices.max { logits.last![$0] < logits.last![$1] }!
            let found = run([Int32(best)], at: logits.count, behind: state, continues: true)
            logits += found.logits
            state = found.states
        }
        return logits
    }

    /// Runs the layers or, if `states` are given, the next-token block on these states.
    private func run(
        _ tokens: [Int32], at start: Int, behind states: [[Float]]? = nil, continues: Bool = false
    ) -> (logits: [[Float]], states: [[Float]]) {
        let scratch = seat.scratch
        let mark = scratch.mark()
        defer { scratch.reset(to: mark) }
        let count = tokens.count
        let pages = scratch.indices(cache.pages)
        // The order is reversed, so that a kernel that ignores the page table reads wrong keys.
        for page in 0..<cache.pages { pages[page] = Int32(cache.pages - 1 - page) }
        let groups = cache.format.groups
        let maps = groups.map { PageMap(pages: pages, shift: $0.shift) }
        let (ids, positions) = (scratch.indices(count), scratch.indices(count))
        let outputs = scratch.indices(count)
        for row in 0..<count {
            ids[row] = tokens[row]
            positions[row] = Int32(start + row)
            outputs[row] = Int32(row)
        }
        let rows = Step.Rows(
            positions: positions, requests: [Step.RequestRows(request: 0, rows: 0..<count, pages: maps)])
        let entries = zip(groups, maps).map { group, map in
            let storing = (0..<count).filter { group.closesEntry(at: start + $0) }
            let (storingRows, slots) = (scratch.indices(storing.count), scratch.indices(storing.count))
            storingRows.copy(storing.map { Int32($0) })
            slots.copy(storing.map { map.slot(of: (start + $0) / group.tokensPerEntry) })
            return Step.EntryRows(rows: storingRows, slots: slots, counts: [storing.count])
        }
        let step = Step(
            own: rows, tokens: ids, entries: entries, attended: rows, outputs: outputs, cache: cache,
            recorder: isRecording ? recorder : nil)
        let all = scratch.rows(count, states == nil ? model.stateWidth : model.draftStateWidth)
        let hidden = all.columns(0..<model.stateWidth)
        let logits = scratch.rows(count, model.vocabularySize)
        seat.begin(rows: [count])
        let (before, callsBefore) = (braid_allocations(), seat.kernelCalls)
        do {
            if let states {
                for (row, values) in states.enumerated() {
                    for (column, value) in values.enumerated() { all[row, column] = value }
                }
                try model.draft(step, seat, states: all, continues: continues)
            } else {
                try model.forward(step, seat, into: hidden)
            }
        } catch {
            preconditionFailure("a rank alone failed: \(error)")
        }
        let calls = seat.kernelCalls - callsBefore
        if states == nil {
            model.logits(hidden, vocabulary: 0..<model.vocabularySize, seat, into: logits)
        } else {
            model.draftLogits(hidden, vocabulary: 0..<model.vocabularySize, seat, into: logits)
        }
        allocations.append(braid_allocations() - before)
        kernelCalls.append(calls)
        func elements(_ view: View) -> [[Float]] { (0..<count).map { view.rows($0..<$0 + 1).elements } }
        return (elements(logits), elements(all))
    }
}
