import Inference

/// A failure that a case has shown.
struct Finding: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// One kind of attack. A case is made from a seed alone, so that it can be repeated.
protocol AttackKind: Sendable {
    static var name: String { get }
    /// Runs one case.
    ///
    /// - Parameter random: the source of everything that is random about the case.
    /// - Throws: `Finding` if something happened that must not.
    func run(_ random: inout SeededGenerator) throws
}

extension AttackKind {
    var name: String { Self.name }
}

extension SeededGenerator {
    mutating func below(_ bound: Int) -> Int { Int.random(in: 0..<bound, using: &self) }

    /// Returns true once in `count` times.
    mutating func oneIn(_ count: Int) -> Bool { below(count) == 0 }

    mutating func pick<Element>(_ elements: [Element]) -> Element { elements[below(elements.count)] }
}
