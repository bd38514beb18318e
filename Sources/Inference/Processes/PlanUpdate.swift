/// A plan update is a step plan as it is sent to another process: it contains only that part of each chunk's lists that
/// the receiver does not know from earlier plans. The pages of long contexts, and the tokens that penalties concern, would
/// otherwise be most of every message.
package struct PlanUpdate: Sendable, Equatable {
    /// The number of this plan in its epoch, from 0. It reveals lost plans, which would leave wrong pages.
    package var sequence: UInt64
    /// The plan, in which the lists of each chunk lack their known elements.
    package var plan: StepPlan
    /// For each of `KnownLists.perChunk` lists of each chunk, the number of elements that precede those in `plan`; they are
    /// the first elements of the same list in the request's last plan.
    package var known: [Int32]
}

extension PlanUpdate: WireCodable {
    package static var empty: PlanUpdate { PlanUpdate(sequence: 0, plan: .empty, known: []) }

    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        try wire.pass(&sequence)
        try wire.pass(&plan)
        try wire.pass(&known)
    }
}

/// Known lists remember the lists of each request's chunk in its last plan. Sender and receiver keep one each; they are
/// equal as long as every update arrives once and in order.
package struct KnownLists: Sendable {
    private var requests: [UInt64: Request] = [:]
    /// The number of the next plan.
    private var sequence: UInt64 = 0

    private struct Request {
        var lists: [[Int32]]
        /// The number of the last plan with rows of the request.
        var sequence: UInt64
    }

    /// The number of lists of a chunk: pages, tokens of the prompt, generated tokens.
    package static let perChunk = 3
    private static let unknown = [[Int32]](repeating: [], count: perChunk)

    /// A request is forgotten after this many plans without it, because plans do not say when a request without a
    /// grammar ends.
    private static let maxAge: UInt64 = 64

    package init() {}

    /// Returns the update to send for a plan; the sender calls this.
    package mutating func update(for plan: StepPlan) -> PlanUpdate {
        var update = PlanUpdate(sequence: sequence, plan: plan, known: [])
        for (index, chunk) in plan.chunks.enumerated() {
            let earlier = requests[chunk.request]?.lists ?? Self.unknown
            let known = zip(chunk.lists, earlier).map(Self.commonPrefix)
            update.known += known.map { Int32($0) }
            update.plan.chunks[index].lists = zip(chunk.lists, known).map { Array($0[$1...]) }
        }
        remember(plan)
        return update
    }

    /// Returns the whole plan of an update; the receiver calls this.
    ///
    /// - Throws: `Wire.Failure` if an update is missing, or refers to elements that no earlier plan contained.
    package mutating func plan(for update: PlanUpdate) throws(Wire.Failure) -> StepPlan {
        guard update.sequence == sequence else {
            throw Wire.Failure(
                description: "plan \(update.sequence) where plan \(sequence) follows: a message was lost or came twice")
        }
        guard update.known.count == Self.perChunk * update.plan.chunks.count else {
            throw Wire.Failure(
                description: "\(update.known.count) known lists for \(update.plan.chunks.count) requests")
        }
        var plan = update.plan
        for (index, chunk) in update.plan.chunks.enumerated() {
            var lists = chunk.lists
            let earlier = requests[chunk.request]?.lists ?? Self.unknown
            for place in lists.indices {
                let known = Int(update.known[Self.perChunk * index + place])
                guard (0...earlier[place].count).contains(known) else {
                    throw Wire.Failure(
                        description:
                            "\(known) known elements of list \(place) of request \(chunk.request), which has "
                            + "\(earlier[place].count)")
                }
                // A list that has not changed is shared, not copied.
                let isSame = known == earlier[place].count && lists[place].isEmpty
                lists[place] = isSame ? earlier[place] : earlier[place][..<known] + lists[place]
            }
            plan.chunks[index].lists = lists
        }
        remember(plan)
        return plan
    }

    private mutating func remember(_ plan: StepPlan) {
        for chunk in plan.chunks { requests[chunk.request] = Request(lists: chunk.lists, sequence: sequence) }
        sequence += 1
        if sequence % Self.maxAge == 0 {
            requests = requests.filter { $0.value.sequence + Self.maxAge > sequence }
        }
    }

    private static func commonPrefix(_ list: [Int32], _ other: [Int32]) -> Int {
        // Lists that share their storage are compared at once.
        if list == other { return list.count }
        var count = 0
        while count < min(list.count, other.count), list[count] == other[count] { count += 1 }
        return count
    }
}

extension StepPlan.Chunk {
    /// The lists that change little from one plan of a request to the next. Those of a sample are empty, and stay so, in a
    /// chunk without one.
    fileprivate var lists: [[Int32]] {
        get { [pages, sample?.prompt ?? [], sample?.generated ?? []] }
        set {
            pages = newValue[0]
            sample?.prompt = newValue[1]
            sample?.generated = newValue[2]
        }
    }
}
