import KVCache

/// The owners of window entries are the ranks that have them where several processes run a data group.
///
/// Ranks send each other only the window entries that rows of the same step see, or rows of the next one
/// (`WindowExchange`). So the entries before a page border inside a chunk are complete in no process, but each unit of
/// positions is complete in that of the rank which computed it. A request that continues from such a border tells these
/// ranks to send what they have (`StepPlan.WindowSources`).
struct WindowOwners: Sendable {
    private let division: SchedulerConfiguration.DividedGroups
    private let pageSize: Int
    private let window: Int
    private let unitsPerPage: Int
    /// The rank, counted in its data group, that has the entries of each unit of each window page; -1 if every rank has
    /// those that a row after a page border can see.
    private var ranks: [Int32]
    /// For each step in flight that sends entries to all ranks, the window pages that hold them.
    private var sending: Set<[Int32]> = []

    /// Creates the owners of window pages that are all free; `nil` where every rank can read all window entries.
    init?(_ configuration: SchedulerConfiguration) {
        guard let division = configuration.dividedGroups, configuration.window > 0 else { return nil }
        self.division = division
        pageSize = configuration.pageSize
        window = configuration.window
        unitsPerPage = configuration.pageSize / division.alignment
        ranks = [Int32](repeating: -1, count: configuration.windowPages * unitsPerPage)
    }

    /// Returns true if every rank has the window before the end of a window page, as far as the page holds it.
    func isWhole(_ page: Int32) -> Bool { ranks[units(of: page)].allSatisfy { $0 < 0 } }

    /// A window page gets new entries, which every rank will have unless `note` says otherwise.
    mutating func reset(_ page: Int32) { for unit in units(of: page) { ranks[unit] = -1 } }

    private func units(of page: Int32) -> Range<Int> { Int(page) * unitsPerPage..<(Int(page) + 1) * unitsPerPage }

    /// Notes who computes the rows of a plan.
    mutating func note(_ plan: StepPlan) {
        let pages = plan.chunks.map(dividedPages)
        for group in Set(plan.chunks.indices.filter { !pages[$0].isEmpty }.map { plan.chunks[$0].group }) {
            let members = plan.chunks.indices.filter { plan.chunks[$0].group == group }
            let chunks = members.map { plan.chunks[$0] }
            var ends = [0]
            for chunk in chunks { ends.append(ends.last! + chunk.tokens.count) }
            let owned = RowAssignment.units(of: chunks, division.parallel, alignment: division.alignment)
            for (rank, runs) in owned.enumerated() {
                for run in runs {
                    let index = ends.lastIndex { $0 <= run.lowerBound }!
                    let chunk = chunks[index]
                    let (page, place) = (chunk.start + run.lowerBound - ends[index])
                        .quotientAndRemainder(dividingBy: pageSize)
                    guard pages[members[index]].contains(page) else { continue }
                    let number = chunk.windowPages[page - chunk.firstWindowPage]
                    ranks[units(of: number).lowerBound + place / division.alignment] = Int32(rank)
                }
            }
        }
    }

    /// Returns the pages among those of a chunk before whose ends not every rank will have the window.
    ///
    /// Such a page ends before the chunk does, so no later chunk has rows in it. Of the positions before the chunk's first,
    /// every rank has those that a row after one of its page borders sees, as they are in the window of its first row.
    private func dividedPages(_ chunk: StepPlan.Chunk) -> Range<Int> {
        let first = chunk.start / pageSize
        return
            first..<max(
                first, CacheFormat.firstSharedPage(before: chunk.nextPosition, window: window, pageSize: pageSize))
    }

    /// Returns who sends the window before a page border to all ranks; `nil` if every rank has it, or gets it in a step that
    /// was planned before.
    ///
    /// - Parameters:
    ///   - pages: the window pages before the border that are held, in order.
    ///   - first: the index of the first one.
    mutating func sources(of pages: [Int32], from first: Int) -> StepPlan.WindowSources? {
        let alignment = division.alignment
        let end = (first + pages.count) * pageSize
        let start = max(first * pageSize, max(0, end - window + 1) / alignment * alignment)
        let owners = stride(from: start, to: end, by: alignment).map { position in
            let (page, place) = position.quotientAndRemainder(dividingBy: pageSize)
            return ranks[units(of: pages[page - first]).lowerBound + place / alignment]
        }
        guard owners.contains(where: { $0 >= 0 }), sending.insert(pages).inserted else { return nil }
        return StepPlan.WindowSources(end: end, ranks: owners)
    }

    /// A step has ended in which the ranks sent what a chunk asked for.
    mutating func noteSent(for chunk: StepPlan.Chunk) {
        guard let end = chunk.windowSources?.end else { return }
        let pages = chunk.windowPages.prefix(end / pageSize - chunk.firstWindowPage)
        sending.remove(Array(pages))
        // Rows after earlier page borders see further entries of earlier pages, which were not sent.
        reset(pages.last!)
    }
}

extension Scheduler {
    /// Returns `count` window pages, which the caller owns; `nil` if fewer are free.
    mutating func allocateWindowPages(_ count: Int) -> [Int32]? {
        let pages = windowPool.allocate(count)
        for page in pages ?? [] { windowOwners?.reset(page) }
        return pages
    }

    /// Returns who sends the window before a request's prefix to all ranks, for the first rows that are planned after it was
    /// found; `nil` if nobody has to.
    mutating func takeWindowSources(of id: UInt64) -> StepPlan.WindowSources? {
        guard let state = sequences[id], state.lacksWindow else { return nil }
        sequences[id]!.lacksWindow = false
        // The pages of the window may have been given up, as those of a long prompt that another server has computed.
        let held = state.sharedPages - state.firstWindowPage
        guard held > 0 else { return nil }
        return windowOwners?.sources(of: Array(state.windowPages.prefix(held)), from: state.firstWindowPage)
    }
}
