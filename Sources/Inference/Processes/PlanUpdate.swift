/// A plan update is a step plan as it is sent to another process: it contains only those pages of each chunk that the
/// receiver does not know from earlier plans. The pages of long contexts would otherwise be most of every message.
package struct PlanUpdate: Sendable, Equatable {
    /// The number of this plan in its epoch, from 0. It reveals lost plans, which would leave wrong pages.
    package var sequence: UInt64
    /// The plan, with only the last pages of each chunk.
    package var plan: StepPlan
    /// For each chunk, the number of pages that precede those in `plan`; they are the first pages that the request had
    /// in its last plan.
    package var knownPages: [Int32]
}

extension PlanUpdate: WireCodable {
    package static var empty: PlanUpdate { PlanUpdate(sequence: 0, plan: .empty, knownPages: []) }

    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        try wire.pass(&sequence)
        try wire.pass(&plan)
        try wire.pass(&knownPages)
    }
}

/// Page lists remember the pages that each request had in its last plan. Sender and receiver keep one each; they are
/// equal as long as every update arrives once and in order.
package struct PageLists: Sendable {
    private var lists: [UInt64: List] = [:]
    /// The number of the next plan.
    private var sequence: UInt64 = 0

    private struct List {
        var pages: [Int32]
        /// The number of the last plan with rows of the request.
        var sequence: UInt64
    }

    /// A request is forgotten after this many plans without it, because plans do not say when a request without a
    /// grammar ends.
    private static let maxAge: UInt64 = 64

    package init() {}

    /// Returns the update to send for a plan; the sender calls this.
    package mutating func update(for plan: StepPlan) -> PlanUpdate {
        var update = PlanUpdate(sequence: sequence, plan: plan, knownPages: [])
        for index in plan.chunks.indices {
            let pages = plan.chunks[index].pages
            let known = lists[plan.chunks[index].request].map { Self.commonPrefix(pages, $0.pages) } ?? 0
            update.knownPages.append(Int32(known))
            update.plan.chunks[index].pages = Array(pages[known...])
        }
        remember(plan)
        return update
    }

    /// Returns the whole plan of an update; the receiver calls this.
    ///
    /// - Throws: `Wire.Failure` if an update is missing, or refers to pages that no earlier plan contained.
    package mutating func plan(for update: PlanUpdate) throws(Wire.Failure) -> StepPlan {
        guard update.sequence == sequence else {
            throw Wire.Failure(
                description: "plan \(update.sequence) where plan \(sequence) follows: a message was lost or came twice")
        }
        guard update.knownPages.count == update.plan.chunks.count else {
            throw Wire.Failure(
                description: "\(update.knownPages.count) page lists for \(update.plan.chunks.count) requests")
        }
        var plan = update.plan
        for (index, known) in update.knownPages.enumerated() {
            let pages = lists[plan.chunks[index].request]?.pages ?? []
            guard (0...pages.count).contains(Int(known)) else {
                throw Wire.Failure(
                    description:
                        "\(known) known pages of request \(plan.chunks[index].request), which has \(pages.count)")
            }
            plan.chunks[index].pages = pages[..<Int(known)] + plan.chunks[index].pages
        }
        remember(plan)
        return plan
    }

    private mutating func remember(_ plan: StepPlan) {
        for chunk in plan.chunks { lists[chunk.request] = List(pages: chunk.pages, sequence: sequence) }
        sequence += 1
        if sequence % Self.maxAge == 0 {
            lists = lists.filter { $0.value.sequence + Self.maxAge > sequence }
        }
    }

    private static func commonPrefix(_ pages: [Int32], _ others: [Int32]) -> Int {
        var count = 0
        while count < min(pages.count, others.count), pages[count] == others[count] { count += 1 }
        return count
    }
}
