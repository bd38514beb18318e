import Foundation
package import Parallelism
import Synchronization
package import Tensors

/// A process card describes a process to the others before a job starts.
package struct ProcessCard: Sendable, Equatable {
    /// Named values that must be equal in all processes.
    package var properties: [Property]
    /// The instruction-set levels of the process's processor, in ascending order.
    package var levels: [String]
    package var host: String
    /// The identity of the pid namespace: processes of one host with equal values see each other's pids.
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

/// The handshake compares the processes of a job before it starts: a difference would otherwise show as wrong answers,
/// or not at all.
package struct Handshake: Sendable, Equatable {
    /// The cards of all processes, in their order.
    package let cards: [ProcessCard]

    package init(_ cards: [ProcessCard]) { self.cards = cards }

    /// Sends this process's card to the others, and waits for theirs.
    ///
    /// - Throws: `GroupFailure` if one of them is lost or its card cannot be read.
    package init(_ own: ProcessCard, among processes: Processes) throws(GroupFailure) {
        let board = Board(own, at: processes.process, of: processes.count)
        processes.read(.card) { message, process in
            board.put(try? Wire.value(ProcessCard.self, in: message.bodyCopy), of: process)
        }
        processes.onFailure { board.fail($0) }
        processes.sendToAll(Message(.card, body: Wire.bytes(of: own)))
        cards = try board.wait()
    }

    /// A difference is a property that is not equal in all processes.
    package struct Difference: Sendable, Equatable {
        package let name: String
        /// The value in each process.
        package let values: [String]

        package init(name: String, values: [String]) {
            self.name = name
            self.values = values
        }
    }

    /// Returns the properties that differ.
    ///
    /// - Parameter allowsMixedLevels: True if processors may differ in their best instruction-set level.
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

    /// The best instruction-set level that all processes have; `nil` where they share none.
    package var commonLevel: Kernels.Level? {
        Kernels.Level.allCases.last { level in cards.allSatisfy { $0.levels.contains(level.rawValue) } }
    }

    /// The name of each process in messages, such as `process 2 on host b`.
    package var names: [String] { cards.enumerated().map { "process \($0) on \($1.host)" } }

    /// Returns the pids of the processes that `process` can see on its own host, and `nil` for itself and those it
    /// cannot see.
    package func pids(seenBy process: Int) -> [Int32?] {
        cards.enumerated().map { other, card in
            let isVisible = (card.host, card.system) == (cards[process].host, cards[process].system)
            return other != process && isVisible ? Int32(exactly: card.pid) : nil
        }
    }
}

/// A board collects the cards of all processes.
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
