import Foundation
package import Parallelism
import Synchronization
package import Tensors

/// What a process says of itself before a job starts.
package struct ProcessCard: Sendable, Equatable {
    /// What must be the same everywhere: what it is called, and what this process has.
    package var properties: [Property]
    /// Instruction-set levels of its processor, worst first.
    package var levels: [String]
    package var host: String
    /// Equal where processes see each other's pids.
    package var system: String
    package var pid: Int

    package struct Property: Sendable, Equatable {
        package var name: String
        package var value: String
        package init(_ name: String, _ value: String) {
            self.name = name
            self.value = value
        }
    }

    package init(properties: [Property], levels: [String], host: String, system: String, pid: Int) {
        self.properties = properties
        self.levels = levels
        self.host = host
        self.system = system
        self.pid = pid
    }
}

/// Compares the processes of a job before it starts: what differs would be found as wrong answers, or never.
package struct Handshake: Sendable, Equatable {
    /// Of all processes, in order.
    package let cards: [ProcessCard]

    package init(_ cards: [ProcessCard]) { self.cards = cards }

    /// Tells the other processes about this one, and waits until all have told.
    ///
    /// - Throws: `GroupFailure` where one of them is lost.
    package init(_ own: ProcessCard, among processes: Processes) throws(GroupFailure) {
        let board = Board(own, at: processes.process, of: processes.count)
        processes.read(.card) { message, process in
            board.put(try? Wire.value(ProcessCard.self, in: message.bodyCopy), of: process)
        }
        processes.onFailure { board.fail($0) }
        processes.sendToAll(Message(.card, body: Wire.bytes(of: own)))
        cards = try board.wait()
    }

    /// Something that is not the same everywhere.
    package struct Difference: Sendable, Equatable {
        package let name: String
        /// By process.
        package let values: [String]
    }

    /// - Parameter allowsMixedLevels: whether processors may differ in their best instruction-set level.
    package func differences(allowsMixedLevels: Bool) -> [Difference] {
        var names: [String] = []
        for property in cards.flatMap(\.properties) where !names.contains(property.name) { names.append(property.name) }
        var found = names.map { name in
            Difference(
                name: name, values: cards.map { card in card.properties.first { $0.name == name }?.value ?? "unknown" })
        }
        let best = Difference(name: "instruction set", values: cards.map { $0.levels.last ?? "none" })
        if !allowsMixedLevels || commonLevel == nil { found.append(best) }
        return found.filter { Set($0.values).count > 1 }
    }

    /// The best instruction-set level that all have.
    package var commonLevel: Kernels.Level? {
        Kernels.Level.allCases.last { level in cards.allSatisfy { $0.levels.contains(level.rawValue) } }
    }

    /// Such as `process 2 on host b`.
    package var names: [String] { cards.enumerated().map { "process \($0) on \($1.host)" } }

    /// The pids of those processes that one of them can see, on its own host: others may be cut off and live.
    package func pids(seenBy process: Int) -> [Int32?] {
        cards.enumerated().map { other, card in
            let isVisible = (card.host, card.system) == (cards[process].host, cards[process].system)
            return other != process && isVisible ? Int32(exactly: card.pid) : nil
        }
    }
}

/// Where cards are collected.
private final class Board: Sendable {
    private let state: Mutex<State>
    private let bell = DispatchSemaphore(value: 0)

    private struct State {
        var cards: [ProcessCard?]
        var failure: GroupFailure?
    }

    init(_ own: ProcessCard, at process: Int, of count: Int) {
        var cards = [ProcessCard?](repeating: nil, count: count)
        cards[process] = own
        state = Mutex(State(cards: cards))
    }

    func put(_ card: ProcessCard?, of process: Int) {
        state.withLock { state in
            state.cards[process] = card
            if card == nil {
                state.failure = GroupFailure(
                    rank: process, reason: "process \(process) says of itself what cannot be read: it is another build")
            }
        }
        bell.signal()
    }

    func fail(_ failure: GroupFailure) {
        state.withLock { $0.failure = $0.failure ?? failure }
        bell.signal()
    }

    func wait() throws(GroupFailure) -> [ProcessCard] {
        while true {
            let (cards, failure) = state.withLock { ($0.cards, $0.failure) }
            if let failure { throw failure }
            let known = cards.compactMap { $0 }
            if known.count == cards.count { return known }
            bell.wait()
        }
    }
}

extension ProcessCard: WireCodable {
    package static var empty: ProcessCard { ProcessCard(properties: [], levels: [], host: "", system: "", pid: 0) }

    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        try wire.pass(&properties)
        try wire.pass(&levels)
        try wire.pass(&host)
        try wire.pass(&system)
        try wire.pass(&pid)
    }
}

extension ProcessCard.Property: WireCodable {
    package static var empty: ProcessCard.Property { ProcessCard.Property("", "") }

    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        try wire.pass(&name)
        try wire.pass(&value)
    }
}
