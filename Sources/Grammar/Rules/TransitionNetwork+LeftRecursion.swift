/// Turns rules that call themselves before they read anything into loops.
///
/// A rule `A = A α | β` derives `β α*`: calls of `A` at its own beginning are removed, and every end of `A` may
/// continue after such a call. Cycles over several rules are first reduced to this by inlining called rules into their
/// callers, in the order of Paull's algorithm.
extension TransitionNetwork {
    mutating func removeLeftRecursion() throws(GrammarError) {
        for circle in circles() {
            for (place, rule) in circle.enumerated() {
                detachStart(of: rule)
                try inlineCalls(at: rule, of: Set(circle[..<place]))
                makeLoop(of: rule)
            }
        }
    }

    /// Gives a rule a beginning that no move leads back to.
    private mutating func detachStart(of rule: Int32) {
        let old = closure(of: starts[Int(rule)])
        var copies: [Int32: Int32] = [:]
        for state in old {
            copies[state] = Int32(states.count)
            states.append(states[Int(state)])
        }
        for copy in copies.values { states[Int(copy)].empty = states[Int(copy)].empty.map { copies[$0] ?? $0 } }
        starts[Int(rule)] = copies[starts[Int(rule)]]!
    }

    /// Replaces calls of other rules at a rule's beginning by copies of those rules, until there are no such calls.
    private mutating func inlineCalls(at rule: Int32, of others: Set<Int32>) throws(GrammarError) {
        var isDone = false
        while !isDone {
            isDone = true
            for state in closure(of: starts[Int(rule)]) {
                let calls = states[Int(state)].calls.filter { others.contains($0.rule) }
                guard !calls.isEmpty else { continue }
                isDone = false
                states[Int(state)].calls.removeAll { others.contains($0.rule) }
                for call in calls { try inline(call, at: state) }
            }
        }
    }

    private mutating func inline(_ call: Call, at state: Int32) throws(GrammarError) {
        var copies = [starts[Int(call.rule)]: try addState()]
        var pending = [starts[Int(call.rule)]]
        states[Int(state)].empty.append(copies[pending[0]]!)
        // A rule that derives the empty text has an empty move beside every call of it, so its beginning need not lead
        // to the state after the call.
        let beginning = Set(closure(of: pending[0]))
        while let original = pending.popLast() {
            var copy = states[Int(original)]
            for next in copy.empty + copy.moves.map(\.target) + copy.calls.map(\.target) where copies[next] == nil {
                copies[next] = try addState()
                pending.append(next)
            }
            copy.empty = copy.empty.map { copies[$0]! }
            for index in copy.moves.indices { copy.moves[index].target = copies[copy.moves[index].target]! }
            for index in copy.calls.indices { copy.calls[index].target = copies[copy.calls[index].target]! }
            if copy.accepts, !beginning.contains(original) { copy.empty.append(call.target) }
            copy.accepts = false
            states[Int(copies[original]!)] = copy
        }
    }

    private mutating func makeLoop(of rule: Int32) {
        var behind: Set<Int32> = []
        // As above, an empty text already continues there.
        let beginning = Set(closure(of: starts[Int(rule)]))
        for state in beginning.sorted() {
            behind.formUnion(states[Int(state)].calls.filter { $0.rule == rule }.map(\.target))
            states[Int(state)].calls.removeAll { $0.rule == rule }
        }
        guard !behind.isEmpty else { return }
        for state in reachable(from: starts[Int(rule)])
        where states[Int(state)].accepts && !beginning.contains(state) {
            states[Int(state)].empty += behind.sorted()
        }
    }

    private func reachable(from start: Int32) -> [Int32] {
        var (seen, pending) = (Set([start]), [start])
        while let state = pending.popLast() {
            let content = states[Int(state)]
            for next in content.empty + content.moves.map(\.target) + content.calls.map(\.target)
            where seen.insert(next).inserted { pending.append(next) }
        }
        return seen.sorted()
    }

    /// Returns the strongly connected components of more than one rule, or of one that calls itself, by Tarjan's
    /// algorithm without recursion.
    private func circles() -> [[Int32]] {
        let corners = leftCorners().map { $0.sorted() }
        var (number, low) = ([Int](repeating: -1, count: starts.count), [Int](repeating: 0, count: starts.count))
        var isOnStack = [Bool](repeating: false, count: starts.count)
        var (stack, found, next) = ([Int](), [[Int32]](), 0)
        for root in starts.indices where number[root] < 0 {
            var frames = [(rule: root, edge: 0)]
            while let (rule, edge) = frames.last {
                if edge == 0 {
                    (number[rule], low[rule]) = (next, next)
                    next += 1
                    stack.append(rule)
                    isOnStack[rule] = true
                }
                if edge < corners[rule].count {
                    frames[frames.count - 1].edge += 1
                    let other = Int(corners[rule][edge])
                    if number[other] < 0 {
                        frames.append((other, 0))
                    } else if isOnStack[other] {
                        low[rule] = min(low[rule], number[other])
                    }
                    continue
                }
                frames.removeLast()
                if let caller = frames.last?.rule { low[caller] = min(low[caller], low[rule]) }
                guard low[rule] == number[rule] else { continue }
                var members: [Int32] = []
                repeat {
                    isOnStack[stack.last!] = false
                    members.append(Int32(stack.removeLast()))
                } while members.last! != Int32(rule)
                if members.count > 1 || corners[rule].contains(Int32(rule)) { found.append(members.sorted()) }
            }
        }
        return found
    }
}
